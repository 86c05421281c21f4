"""Counts the kernel variants that Triton compiles in an epoch's launches, and times launches, without a GPU.

    python -m bench.launches [--capabilities 75 80 86 89 90 100 120]

Triton's own compiler and launcher run, on a stub of CUDA's driver library (stub_cuda.py). Prints JSON: for each compute
capability, the variants by output type, and the time of a launch of 256 images, its minimum and its median. That is the
host's time, without that of a real driver.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.stub_cuda import StubCuda
from fastpets import Loader
from fastpets.data.dataset import ImageDataset
from fastpets.data.sample import sample_folder
from fastpets.data.sources import from_folder
from fastpets.kernels import warp_triton
from fastpets.loading import dali_engine, warping

CAPABILITIES = (75, 80, 86, 89, 90, 100, 120)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.uint8)
BATCH_SIZE, NUM_LAUNCHES = 256, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capabilities", type=int, nargs="+", default=CAPABILITIES)
    capabilities = parser.parse_args().capabilities
    dataset = from_folder(sample_folder()).select(np.arange(10))
    with tempfile.TemporaryDirectory() as folder:
        stub = StubCuda(Path(folder))
        found = {}
        for capability in capabilities:
            stub.use(capability)
            found[f"sm_{capability}"] = {
                "variants": {str(dtype): epochs(stub, dataset, dtype) for dtype in DTYPES},
                **launches(stub),
            }
        print(json.dumps(found, indent=1))


def epochs(stub: StubCuda, dataset: ImageDataset, dtype: torch.dtype) -> list[str]:
    """Runs epochs of several batch and output sizes, and returns the variants compiled for them."""
    num_variants, num_launches, num_batches = len(stub.variants), stub.num_launches, 0
    settings: dict[str, Any] = {"output": "uint8"} if dtype == torch.uint8 else {"dtype": dtype}
    for size, batch_size, augment in ((64, 4, True), (37, 7, False), (32, 1, False)):
        settings |= {"size": size, "batch_size": batch_size, "augment": augment}
        loader = Loader(dataset, device="cpu", decoder="dali", drop_last=False, **settings)
        with as_on_a_gpu():
            num_batches += sum(1 for _ in loader)
    assert stub.num_launches == num_launches + 2 * num_batches, "expected two launches for each batch"
    return stub.variants[num_variants:]


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """As on a GPU, the calling thread launches Triton's kernels for the whole batch."""
    with mock.patch.object(dali_engine, "warp", lambda pool, *arguments: warping._warp_on_gpu(*arguments)):
        yield


def launches(stub: StubCuda) -> dict[str, Any]:
    """Times launches of images of 375 x 500 px to 224 px in float16."""
    images = [torch.empty(375, 500, 3, dtype=torch.uint8)] * BATCH_SIZE
    once = torch.ones(BATCH_SIZE)
    rows = warp_triton.pack_arguments(images, torch.eye(3).expand(BATCH_SIZE, 3, 3), once, once)
    luts = torch.empty(BATCH_SIZE, 3, 256, dtype=torch.float16)
    out = torch.empty(BATCH_SIZE, 224, 224, 3, dtype=torch.float16)
    seconds = []
    for _ in range(NUM_LAUNCHES):
        started = time.perf_counter()
        warp_triton.launch(rows, luts, out, "reflect")
        seconds.append(time.perf_counter() - started)
    assert stub.last_launch == ([14, 14, BATCH_SIZE], [128, 1, 1], rows.data_ptr()), stub.last_launch
    return {"minimum us": round(1e6 * min(seconds), 1), "median us": round(1e6 * sorted(seconds)[NUM_LAUNCHES // 2], 1)}


if __name__ == "__main__":
    main()

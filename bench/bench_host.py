"""The host's time for a batch whose decoded images are cached in a GPU's memory.

On a GPU, this is the time until all launches of an epoch are queued. Without a GPU, it is the time for all but the
launch itself: the epoch plan, random parameters, matrices, lookup tables, and the kernel's description of each image.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastpets import Loader, kernels
from fastpets.data.dataset import ImageDataset
from fastpets.kernels import warp_triton
from fastpets.loading import pool

COUNT, BATCH_SIZE = 7390, 256


class _NotLaunched:
    """Stands in for the kernel where there is no GPU, and does nothing."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if torch.cuda.is_available():
        yield "cuda"
        return
    monkeypatch.setattr(warp_triton, "_warp", _NotLaunched())

    monkeypatch.setattr(kernels, "warp", lambda *args: warp_triton.warp(*args))
    monkeypatch.setattr(pool, "even_slices", lambda count, _: [slice(0, count)])  # a batch in one go, as on a GPU
    yield "cpu"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def bench_host(benchmark: BenchmarkFixture, images: list[str], device: str, dtype: torch.dtype) -> None:
    paths = (images * (COUNT // len(images) + 1))[:COUNT]
    dataset = ImageDataset(tuple(paths), np.arange(COUNT) % 37, tuple(map(str, range(37))))
    loader = Loader(
        dataset, batch_size=BATCH_SIZE, augment=True, dtype=dtype, device=device, num_workers=4, cache="device"
    )
    loader.cache.filled[:] = True  # uninitialised pixels will do: only the host's work is timed

    def epoch() -> int:
        return sum(1 for _ in loader)

    assert benchmark.pedantic(epoch, rounds=20, warmup_rounds=3) == len(loader)
    if benchmark.enabled:
        median, least = (
            1000 * seconds / len(loader) for seconds in (benchmark.stats.stats.median, benchmark.stats.stats.min)
        )
        benchmark.extra_info.update(device=device, ms_per_batch=median)
        print(f"\n{dtype}: {median:.2f} ms (at least {least:.2f}) for a batch of {BATCH_SIZE} on {device}")

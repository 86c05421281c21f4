"""The time for which a thread that reads files for DALI holds Python's GIL, per file.

    FASTPETS_PETS=... python -m bench.gil

One thread reads the files and checks them, as each reader of `decoder="dali"` does; they are in the page cache. Prints,
for all of it and for its parts, the time per file in us, the time with the GIL, and how often it is released: the least
of ROUNDS rounds. Needs a C compiler, and a Python that loads its libpython: gil.c is preloaded.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bench.stub_cuda import compiler
from fastpets import Loader, pipelines
from fastpets.data import jpeg, storage
from fastpets.loading.dali_reading import TYPICAL_BYTES, Reader

ROUNDS, SHARE = 100, 64  # files in a round


def main() -> None:
    if "FASTPETS_PETS" not in os.environ:
        sys.exit("bench.gil needs FASTPETS_PETS, a folder of JPEGs")
    if "FASTPETS_GIL" in os.environ:
        return measure(ctypes.PyDLL(os.environ["FASTPETS_GIL"]))
    with tempfile.TemporaryDirectory() as folder:
        library, source = str(Path(folder, "gil.so")), str(Path(__file__).with_suffix(".c"))
        subprocess.run([str(compiler()), source, "-O2", "-shared", "-fPIC", "-ldl", "-o", library], check=True)
        variables = os.environ | {"LD_PRELOAD": library, "FASTPETS_GIL": library}
        sys.exit(subprocess.run([sys.executable, "-m", "bench.gil"], env=variables).returncode)


def measure(library: ctypes.PyDLL) -> None:
    for function in (library.gil_released_ns, library.gil_num_releases):
        function.restype = ctypes.c_longlong
    time.sleep(0)
    if not library.gil_num_releases():
        sys.exit("this Python has libpython linked in, so that gil.c cannot see when it releases the GIL; use another")
    loader = Loader(os.environ["FASTPETS_PETS"], label_from="none", size=224, decoder="dali", device="cpu")
    parts: Any = SimpleNamespace(num_threads=4), loader.dataset.paths, loader.headers, None, loader._bad_files, None
    reader = Reader(*parts, torch.device("cpu"))
    paths = list(loader.dataset.paths)

    def read(ids: np.ndarray) -> list[np.ndarray]:
        block_reader = storage.BlockReader(reader._allocate, TYPICAL_BYTES * len(ids))
        return [block_reader.read(paths[i]) for i in ids.tolist()]

    def check(function: Callable[[np.ndarray], object]) -> Callable[[np.ndarray], object]:
        files = read(np.arange(len(paths)))
        return lambda ids: [function(files[i]) for i in ids.tolist()]

    rows = {
        "Reader.read": reader.read,
        "BlockReader.read": read,
        "jpeg.is_damaged": check(jpeg.is_damaged),
        "pipelines.parse": check(pipelines.parse),
    }
    random = np.random.default_rng(0)
    for name, function in rows.items():
        rounds = []
        for _ in range(ROUNDS):
            ids = random.integers(0, len(paths), SHARE)
            releases, released, start = library.gil_num_releases(), library.gil_released_ns(), time.perf_counter_ns()
            kept = function(ids)
            passed, released = time.perf_counter_ns() - start, library.gil_released_ns() - released
            rounds.append((passed, passed - released, library.gil_num_releases() - releases))
            del kept
        passed, held, releases = np.min(rounds, axis=0) / SHARE
        print(f"{name:18s}{passed / 1000:6.1f} us, {held / 1000:5.1f} with the GIL, released {releases:.0f} times")


if __name__ == "__main__":
    main()

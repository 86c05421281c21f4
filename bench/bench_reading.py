"""Throughput of reading alone: files per second from the page cache with four threads, as on the way to DALI.

    python -m pytest bench/bench_reading.py --benchmark-enable

Each row reads the same shares of batches, checks them by their markers and with the decoder's parser, and keeps the
bytes of the latest ones as a Loader does until they are decoded. `fastpets` is what the threads of `decoder="dali"` do;
`fastpets-cpu` reads each file into new memory, as those of a Loader on a CPU do, which have more to do than to read;
`python` is open().read(). Rows with "-unchecked" are without the checks. They run alone, and beside a thread that holds
the interpreter's lock most of the time, as training may. Plain pytest reads one batch per row, untimed.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peer_loaders import BATCH_SIZE
from fastpets import pipelines
from fastpets.data import jpeg, storage
from fastpets.data.path_table import PathTable
from fastpets.loading.buffers import Buffers
from fastpets.loading.dali_reading import BLOCKS_PER_THREAD, TYPICAL_BYTES

NUM_THREADS = 4
NUM_BATCHES = 64
BATCHES_KEPT = 5  # those that are read ahead, and those that are being decoded
BUSY, IDLE = 1e-3, 5e-4  # seconds of the other thread, in turn

Read = Callable[[Sequence[str]], Any]


def into_blocks() -> Read:
    buffers = Buffers(torch.device("cpu"), BLOCKS_PER_THREAD * NUM_THREADS)

    def read(paths: Sequence[str]) -> list[np.ndarray]:
        reader = storage.BlockReader(lambda n: buffers.empty((n,), torch.uint8).numpy(), TYPICAL_BYTES * len(paths))
        return [reader.read(path) for path in paths]

    return read


def into_new_memory() -> Read:
    return lambda paths: [np.frombuffer(storage.read(path), np.uint8) for path in paths]


def by_python() -> Read:
    def read(path: str) -> np.ndarray:
        with open(path, "rb") as file:
            return np.frombuffer(file.read(), np.uint8)

    return lambda paths: [read(path) for path in paths]


READERS = {"fastpets": into_blocks, "fastpets-cpu": into_new_memory, "python": by_python}


@pytest.mark.parametrize("beside", ["alone", "beside a busy thread"])
@pytest.mark.parametrize("checked", [True, False], ids=["checked", "unchecked"])
@pytest.mark.parametrize("row", READERS)
def bench_reading(benchmark: BenchmarkFixture, images: list[str], row: str, checked: bool, beside: str) -> None:
    """Measures one row; the files are those of the loading benchmarks."""
    benchmark.group = f"reading with {NUM_THREADS} threads, {beside}"
    count = BATCH_SIZE * (NUM_BATCHES if benchmark.enabled else 1)
    table = PathTable((images * (count // len(images) + 1))[:count])
    read = READERS[row]()
    kept: deque[Any] = deque(maxlen=BATCHES_KEPT * NUM_THREADS)
    share = BATCH_SIZE // NUM_THREADS

    def work(start: int) -> int:
        contents = read([table[i] for i in range(start, start + share)])
        if checked:
            for content in contents:
                assert not jpeg.is_damaged(content)
                pipelines.parse(content)
        kept.append(contents)
        return len(contents)

    with ThreadPoolExecutor(NUM_THREADS) as pool, busy_thread() if beside != "alone" else contextlib.nullcontext():

        def epoch() -> None:
            assert sum(pool.map(work, range(0, count, share))) == count

        benchmark.pedantic(epoch, rounds=9, warmup_rounds=1)
    if benchmark.enabled:
        rate = count / benchmark.stats.stats.median
        name = row if checked else f"{row}-unchecked"
        benchmark.extra_info.update(row=name, num_threads=NUM_THREADS, images_per_sec=rate)


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """A thread that computes in Python for BUSY seconds and sleeps for IDLE seconds, in turn."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            end = time.perf_counter() + BUSY
            while time.perf_counter() < end:
                pass
            time.sleep(IDLE)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

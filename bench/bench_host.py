"""The host's time for a batch whose decoded images are cached in a GPU's memory.

On a GPU, this is the time until all launches of an epoch are queued. Without a GPU, it is the time for all but the two
launches themselves, which bench/launches.py measures: the epoch plan, random parameters, matrices, and the kernels'
arguments. Allocations, copies and events are then a CPU's.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.launches import as_on_a_gpu
from fastpets import Loader
from fastpets.data.dataset import ImageDataset
from fastpets.kernels import luts_triton, warp_triton

COUNT, BATCH_SIZE = 7390, 256


class _NotLaunched:
    """Stands in for a kernel where there is no GPU, and does nothing."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if torch.cuda.is_available():
        yield "cuda"
        return
    monkeypatch.setattr(warp_triton, "_warp", _NotLaunched())
    monkeypatch.setattr(luts_triton, "_luts", _NotLaunched())
    with as_on_a_gpu():
        yield "cpu"


def times_of_batches(loader: Loader) -> list[float]:
    """When each batch of an epoch was delivered, in ms from the epoch's start."""
    started = time.perf_counter()
    return [1000 * (time.perf_counter() - started) for _ in loader]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def bench_host(benchmark: BenchmarkFixture, images: list[str], device: str, dtype: torch.dtype) -> None:
    paths = (images * (COUNT // len(images) + 1))[:COUNT]
    dataset = ImageDataset(tuple(paths), np.arange(COUNT) % 37, tuple(map(str, range(37))))
    loader = Loader(
        dataset,
        batch_size=BATCH_SIZE,
        augment=True,
        dtype=dtype,
        device=device,
        decoder="dali",
        num_workers=4,
        cache="device",
    )
    loader.cache.filled[:] = True  # its pixels stay uninitialised: only the host's work is timed

    def epoch() -> int:
        return len(times_of_batches(loader))

    assert benchmark.pedantic(epoch, rounds=20, warmup_rounds=3) == len(loader)
    if benchmark.enabled:
        epochs = [times_of_batches(loader) for _ in range(20)]
        between = np.median(np.diff(epochs))
        print(f"\n{dtype}, {device}: {between:.2f} ms from one batch to the next; the first of an epoch after")
        print(f"{np.median([times[0] for times in epochs]):.2f} ms,", end=" ")
        prepared = []
        for _ in range(20):
            loader.prepare()
            loader._prepared.is_made.result()
            prepared.append(times_of_batches(loader)[0])
        print(f"and after {np.median(prepared):.2f} ms if the epoch was prepared (medians)")
        stats = benchmark.stats.stats
        median_ms, least_ms = (1000 * seconds / len(loader) for seconds in (stats.median, stats.min))
        benchmark.extra_info.update(device=device, ms_per_batch=median_ms)
        print(
            f"\n{dtype}, {device}: {median_ms:.2f} ms per batch of {BATCH_SIZE} (median), {least_ms:.2f} ms (minimum)"
        )

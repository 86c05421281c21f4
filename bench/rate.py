"""The measurement shared by all loading benchmarks: whole epochs of one row's loader."""

from collections.abc import Sequence
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers import PEERS


def measure(
    benchmark: BenchmarkFixture, row: str, images: Sequence[str], count: int, num_threads: int, **settings: Any
) -> None:
    """Times epochs of `count` images, repeated from `images`, and records the row's median images per second.

    There is one epoch of warm-up and three timed ones, or one in all if benchmarks are disabled. Asserts in every
    epoch that all images came.
    """
    paths = (list(images) * (count // len(images) + 1))[:count]
    loader = PEERS[row](paths, [number % 37 for number in range(count)], num_threads, **settings)

    def epoch() -> None:
        num_images = sum(len(labels) for _, labels in loader)
        assert num_images == count, f"{row}: {num_images} images in an epoch, expected {count}"

    prepare = getattr(loader, "prepare", lambda: None)  # what belongs to an epoch, but is not timed
    benchmark.pedantic(epoch, setup=prepare, rounds=3, warmup_rounds=1)
    if benchmark.enabled:
        rate = count / benchmark.stats.stats.median
        benchmark.extra_info.update(row=row, num_threads=num_threads, images_per_sec=rate)

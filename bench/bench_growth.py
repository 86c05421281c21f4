"""Cost as work grows: images per second over the output's size, the batch size, threads and the images' size.

    make bench

On the CPU, each row with all processors but where threads are what grows; the median of three epochs after one to
warm up. `bench/growth.py` draws the result. Plain pytest loads eight images of each, untimed.
"""

from collections.abc import Callable
from functools import cache

import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from bench.rate import measure
from fastpets.utils.system import num_processors

UNTIMED_IMAGES = 8
# Images an epoch for each thread: half a second to a second of each row.
IMAGES = {"fastpets": 512, "torchvision": 192}
# The same by the source's longer side in pixels, for decoding alone as well.
SOURCE_IMAGES = {100: 1024, 250: 768, 500: 384, 1000: 128, 2000: 64, 4000: 32}
SOURCE_BATCH_SIZE = 16  # a decoded image of 4,000 px takes 36 MB


def _thread_counts() -> list[int]:
    """1, 2, 4 and so on, and all of them."""
    most = num_processors()
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)})


@pytest.mark.benchmark(group="cost: output size, px")
@pytest.mark.parametrize("size", [64, 128, 224, 320, 512])
@pytest.mark.parametrize("row", IMAGES)
def bench_output_size(benchmark: BenchmarkFixture, images: list[str], row: str, size: int) -> None:
    """Squares of 64 to 512 px from the same images."""
    num_threads = num_processors()
    count = IMAGES[row] * num_threads if benchmark.enabled else UNTIMED_IMAGES
    measure(benchmark, row, images, count, num_threads, size=size)
    benchmark.extra_info["x"] = size


@pytest.mark.benchmark(group="cost: batch size")
@pytest.mark.parametrize("batch_size", [1, 4, 16, 64, 256])
@pytest.mark.parametrize("row", IMAGES)
def bench_batch_size(benchmark: BenchmarkFixture, images: list[str], row: str, batch_size: int) -> None:
    """The same images in batches of 1 to 256, of which each worker has at least two."""
    num_threads = num_processors()
    count = max(IMAGES[row], 2 * batch_size) * num_threads if benchmark.enabled else UNTIMED_IMAGES
    measure(benchmark, row, images, count, num_threads, batch_size=batch_size)
    benchmark.extra_info["x"] = batch_size


@pytest.mark.benchmark(group="cost: threads")
@pytest.mark.parametrize("num_threads", _thread_counts())
@pytest.mark.parametrize("row", IMAGES)
def bench_threads(benchmark: BenchmarkFixture, images: list[str], row: str, num_threads: int) -> None:
    """The same images on one thread, or worker process, to as many as there are processors."""
    count = IMAGES[row] * num_threads if benchmark.enabled else UNTIMED_IMAGES
    measure(benchmark, row, images, count, num_threads)
    benchmark.extra_info["x"] = num_threads


@pytest.mark.benchmark(group="cost: source size, px")
@pytest.mark.parametrize("longer_side", SOURCE_IMAGES)
@pytest.mark.parametrize("row", [*IMAGES, "decode-only"])
def bench_source_size(
    benchmark: BenchmarkFixture, resized: Callable[[int], list[str]], row: str, longer_side: int
) -> None:
    """Squares of 224 px from images of 100 to 4,000 px, and those images' decoding alone."""
    num_threads = num_processors()
    most = IMAGES.get(row, SOURCE_IMAGES[longer_side])
    count = min(most, SOURCE_IMAGES[longer_side]) * num_threads if benchmark.enabled else UNTIMED_IMAGES
    batch_size = max(SOURCE_BATCH_SIZE, num_threads)  # DALI's threads share a batch, an image each
    measure(benchmark, row, resized(longer_side), count, num_threads, batch_size=batch_size)
    benchmark.extra_info["x"] = longer_side


@pytest.fixture(scope="module")
def resized(images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[str]]:
    """Four real images resized to a longer side in pixels, as JPEG of quality 90: smoother than a camera's."""

    @cache
    def paths(longer_side: int) -> list[str]:
        folder = tmp_path_factory.mktemp(f"images-of-{longer_side}-px")
        for number, path in enumerate(images[:: len(images) // 4][:4]):
            with Image.open(path) as image:
                scale = longer_side / max(image.size)
                width, height = (round(side * scale) for side in image.size)
                image.convert("RGB").resize((width, height)).save(folder / f"{number}.jpg", quality=90)
        return sorted(map(str, folder.iterdir()))

    return paths

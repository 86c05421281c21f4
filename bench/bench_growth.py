"""Loading on the CPU: images per second by output size, batch size, number of threads and source size.

    make bench

Each row uses all processors, except where the number of threads varies. The result is the median of three epochs after
one epoch of warm-up; `bench/growth.py` plots it. Plain pytest loads eight images per row, untimed.
"""

from collections.abc import Callable
from functools import cache

import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from bench.rate import measure
from fastpets.utils.system import num_processors

UNTIMED_IMAGES = 8
# Images per epoch and thread: an epoch takes half a second to a second.
IMAGES = {"fastpets": 512, "torchvision": 192}
# The same by the source's longer side in pixels; also for decoding alone.
SOURCE_IMAGES = {100: 1024, 250: 768, 500: 384, 1000: 128, 2000: 64, 4000: 32}
SOURCE_BATCH_SIZE = 16  # a decoded image of 4,000 px takes 36 MB


def _thread_counts() -> list[int]:
    """The powers of two below the number of processors, and that number."""
    most = num_processors()
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)})


@pytest.mark.benchmark(group="cost: output size, px")
@pytest.mark.parametrize("size", [64, 128, 224, 320, 512])
@pytest.mark.parametrize("row", IMAGES)
def bench_output_size(benchmark: BenchmarkFixture, images: list[str], row: str, size: int) -> None:
    """Output of 64 x 64 to 512 x 512 px from the same images."""
    num_threads = num_processors()
    count = IMAGES[row] * num_threads if benchmark.enabled else UNTIMED_IMAGES
    measure(benchmark, row, images, count, num_threads, size=size)
    benchmark.extra_info["x"] = size


@pytest.mark.benchmark(group="cost: batch size")
@pytest.mark.parametrize("batch_size", [1, 4, 16, 64, 256])
@pytest.mark.parametrize("row", IMAGES)
def bench_batch_size(benchmark: BenchmarkFixture, images: list[str], row: str, batch_size: int) -> None:
    """Batches of 1 to 256 of the same images, at least two batches per worker."""
    num_threads = num_processors()
    count = max(IMAGES[row], 2 * batch_size) * num_threads if benchmark.enabled else UNTIMED_IMAGES
    measure(benchmark, row, images, count, num_threads, batch_size=batch_size)
    benchmark.extra_info["x"] = batch_size


@pytest.mark.benchmark(group="cost: threads")
@pytest.mark.parametrize("num_threads", _thread_counts())
@pytest.mark.parametrize("row", IMAGES)
def bench_threads(benchmark: BenchmarkFixture, images: list[str], row: str, num_threads: int) -> None:
    """The same images on one thread, or worker process, up to one per processor."""
    count = IMAGES[row] * num_threads if benchmark.enabled else UNTIMED_IMAGES
    measure(benchmark, row, images, count, num_threads)
    benchmark.extra_info["x"] = num_threads


@pytest.mark.benchmark(group="cost: source size, px")
@pytest.mark.parametrize("longer_side", SOURCE_IMAGES)
@pytest.mark.parametrize("row", [*IMAGES, "fastpets-fast", "fastpets-disk", "decode-only"])
def bench_source_size(
    benchmark: BenchmarkFixture, resized: Callable[[int], list[str]], row: str, longer_side: int
) -> None:
    """Output of 224 x 224 px from images of 100 to 4,000 px, also with decode="fast" and in a second run."""
    num_threads = num_processors()
    most = IMAGES.get(row, max(SOURCE_IMAGES.values()))
    count = min(most, SOURCE_IMAGES[longer_side]) * num_threads if benchmark.enabled else UNTIMED_IMAGES
    batch_size = max(SOURCE_BATCH_SIZE, num_threads)  # DALI decodes one image per thread at a time
    measure(benchmark, row, resized(longer_side), count, num_threads, batch_size=batch_size)
    benchmark.extra_info["x"] = longer_side


@pytest.fixture(scope="module")
def resized(images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[str]]:
    """Resizes four real images to a longer side in px, as JPEG of quality 90, which are smoother than camera images."""

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

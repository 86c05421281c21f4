"""Throughput of loading on the CPU: images per second from JPEG files to augmented, normalised batches at 224 px.

    make bench

All rows run one after another in one process, with one thread, or worker process, per processor. The result is the
median of three epochs after one epoch of warm-up, which fills the caches of `fastpets-cached` and `ultralytics-disk`.
Plain pytest loads one batch per row, untimed.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peer_loaders import BATCH_SIZE
from bench.peers import LIBRARIES
from bench.rate import measure
from fastpets.utils.system import num_processors

# Batches per epoch and processor: an epoch takes some seconds. All are full, as timm and fastai drop an incomplete one.
NUM_BATCHES = {
    "fastpets": 32,
    "fastpets-short": 24,  # eight epochs of 384 images on two processors
    "fastpets-dali": 32,
    "fastpets-cached": 16,  # half a gigabyte of decoded images
    "fastpets-disk": 32,
    "warp-only": 16,
    "torchvision": 10,
    "torchvision-pillow": 10,
    "timm": 12,
    "fastai": 3,
    "opencv": 32,
    "dali-native": 24,
    "ultralytics-disk": 10,
    "ffcv-raw": 16,  # a gigabyte of pixels
    "ffcv-jpeg": 12,
    "decode-only": 48,
    "decode-only-dali": 48,
}


@pytest.mark.benchmark(group="loading at 224 px on the CPU")
@pytest.mark.parametrize("row", NUM_BATCHES)
def bench_loading(benchmark: BenchmarkFixture, images: list[str], row: str) -> None:
    """Measures one row; every epoch must deliver all images."""
    if row in LIBRARIES:
        pytest.importorskip(LIBRARIES[row], reason=f"needs {LIBRARIES[row]}, see bench/README.md")
    num_threads = num_processors()
    num_batches = NUM_BATCHES[row] * num_threads if benchmark.enabled else 1
    measure(benchmark, row, images, num_batches * BATCH_SIZE, num_threads)

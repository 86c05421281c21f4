"""Loading alone: images per second from JPEG files to augmented, normalised batches at 224 px, on the CPU.

    make bench

All rows run in one process after each other, on as many threads, or worker processes, as there are processors. The
median of three epochs is taken after one to warm up, which for `fastpets-cached` fills the cache; plain pytest loads
one batch of each, untimed.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peer_loaders import BATCH_SIZE
from bench.peers import LIBRARIES, PEERS
from bench.rate import measure
from fastpets.utils.system import num_processors

# Batches an epoch for each processor: some seconds of each row. They are whole, as timm and fastai drop what is left.
NUM_BATCHES = {
    "fastpets": 32,
    "fastpets-cached": 16,  # half a gigabyte of decoded images
    "torchvision": 10,
    "torchvision-pillow": 10,
    "timm": 12,
    "fastai": 3,
    "opencv": 32,
    "dali-native": 24,
    "decode-only": 48,
}


@pytest.mark.benchmark(group="loading at 224 px on the CPU")
@pytest.mark.parametrize("row", PEERS)
def bench_loading(benchmark: BenchmarkFixture, images: list[str], row: str) -> None:
    """Every image of an epoch arrives, in batches."""
    if row in LIBRARIES:
        pytest.importorskip(LIBRARIES[row], reason=f"{LIBRARIES[row]} is in the extra `bench`")
    num_threads = num_processors()
    num_batches = NUM_BATCHES[row] * num_threads if benchmark.enabled else 1
    measure(benchmark, row, images, num_batches * BATCH_SIZE, num_threads)

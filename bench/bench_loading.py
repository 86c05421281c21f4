"""Loading alone: pictures per second from JPEG files to augmented, normalised batches at 224 px, on the CPU.

    make bench

All rows run in one process after each other, on as many threads, or worker processes, as there are processors. One
epoch is timed after one to warm up; plain pytest runs one batch's worth of each, untimed.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers import BATCH_SIZE, PEERS
from fastpets.system import num_processors

# Pictures an epoch: some seconds of each (5,920 are an epoch of Oxford-IIIT Pet).
PICTURES = {"fastpets": 5920, "decode-only": 5920, "torchvision": 1480, "fastai": 370}


@pytest.mark.benchmark(group="loading at 224 px on the CPU")
@pytest.mark.parametrize("row", PEERS)
def bench_loading(benchmark: BenchmarkFixture, pictures: list[str], row: str) -> None:
    """Every picture of an epoch arrives, in batches."""
    if row == "fastai":
        pytest.importorskip("fastai", reason="fastai is in the extra `bench`")
    count = PICTURES[row] if benchmark.enabled else BATCH_SIZE
    paths = (pictures * (count // len(pictures) + 1))[:count]
    loader = PEERS[row](paths, [number % 37 for number in range(count)], num_processors())

    def epoch() -> int:
        return sum(len(batch[1]) for batch in loader)

    num_images = benchmark.pedantic(epoch, rounds=3, warmup_rounds=1)
    assert num_images in (
        count,
        count - 1 - (count - 1) % BATCH_SIZE,
    )  # fastai holds one back and drops the last batch
    if benchmark.enabled:
        benchmark.extra_info["row"] = row
        benchmark.extra_info["images_per_sec"] = num_images / benchmark.stats.stats.median

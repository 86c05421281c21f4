"""Loading beside a busy stream, and memory over many epochs: tests that take long or may hang, each with a time limit.

Each test also runs with the CPU in place of the GPU, which tests the test itself; `pytest -m gpu` runs those on a GPU.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpets import Loader
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import from_folder
from tests.devices import DEVICES, num_jpeg_engines
from tests.images import drawing
from tests.loading.test_gpu import dataset, loader

__all__ = ["dataset"]  # a fixture

BUSY_MS = 3  # of work on another stream, for each batch


@pytest.fixture
def photos(tmp_path: Path) -> ImageDataset:
    """Baseline JPEGs, which a hardware decoder accepts."""
    for number in range(64):
        drawing(200 + 9 * (number % 7), 260 + 11 * (number % 5), seed=number).save(tmp_path / f"kind_{number}.jpg")
    return from_folder(tmp_path)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("hw_decoder_load", "own_stream", "where"),
    [(0.0, False, "none"), (0.0, True, "none"), (1.0, False, "none"), (1.0, True, "none"), (0.0, False, "host")],
    ids=["software", "software, own stream", "hardware", "hardware, own stream", "cached on the host"],
)
def test_batches_have_the_same_checksums_while_another_stream_is_busy(
    photos: ImageDataset, device: str, hw_decoder_load: float, own_stream: bool, where: str
) -> None:
    """The checksums are those of batches that are waited for while nothing else runs."""
    if hw_decoder_load and device == "cuda" and not num_jpeg_engines():
        pytest.skip("this GPU has no hardware JPEG decoder")
    count, seconds = (1000, 2.5) if device == "cuda" else (12, 30)
    quiet, busy = (loader(photos, device, hw_decoder_load=hw_decoder_load, cache=where) for _ in range(2))
    expected = []
    for batch in within(seconds, count, quiet):
        wait(device)
        expected.append(checksum(batch.images).item())
    found = []
    with own(device, own_stream):
        for batch in within(seconds, len(expected), busy):
            work(device)
            found.append(checksum(batch.images))
        assert [each.item() for each in found] == expected[: len(found)]
    assert len(found) >= 12


def within(seconds: float, count: int, loader: Loader) -> Iterator[Any]:
    """The batches of a loader's epochs, until there are `count` or the time is over."""
    started = time.monotonic()
    for number, batch in enumerate(chain.from_iterable(repeat(loader))):
        if number == count or (time.monotonic() - started > seconds and number >= 12):
            return
        yield batch


def checksum(images: torch.Tensor) -> torch.Tensor:
    """A number that depends on each value and its position."""
    values = images.permute(0, 2, 3, 1).flatten().view(torch.int32).long()
    return (values * (torch.arange(len(values), device=values.device) % 1000003 + 1)).sum()


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def own(device: str, own_stream: bool) -> Any:
    """The context of a stream that is not the default one."""
    return torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" and own_stream else nullcontext()


def work(device: str) -> None:
    """Keeps another stream busy for about BUSY_MS on any GPU."""
    if device == "cuda":
        stream, product, count = busy_stream()
        with torch.cuda.stream(stream):
            for _ in range(count):
                product()


@cache
def busy_stream() -> tuple[torch.cuda.Stream, Callable[[], Any], int]:
    """A stream, a matrix product, and how many of these take BUSY_MS: 1 on a T4, 10 to 20 on an H100."""
    matrix = torch.ones(4096, 4096, dtype=torch.float16, device="cuda")
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return torch.cuda.Stream(), lambda: torch.mm(matrix, matrix), max(1, round(BUSY_MS / min(times)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["none", "device"])
def test_memory_does_not_grow_with_epochs(dataset: ImageDataset, device: str, where: str) -> None:
    made = loader(dataset, device, cache=where, shuffle=False)  # the same batches each time need the same memory
    early, late, room = (5, 50, 2**24) if device == "cuda" else (3, 9, 2**26)
    used, started = [], time.monotonic()
    while len(used) < late and (len(used) <= early or time.monotonic() - started < 6):
        for _ in made:
            pass
        used.append(memory_in_use(device))
    assert used[-1] <= used[early - 1] + room  # a GPU allocates 2 MiB or more at a time; a decoded batch is 4 MB


def memory_in_use(device: str) -> int:
    """Bytes in use on the whole GPU, as DALI and torch allocate separately; on a CPU, of this process."""
    if device == "cuda":
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        return total - free
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

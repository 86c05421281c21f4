"""However a loop is left, nothing stays behind, and the next one is whole."""

import contextlib
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler

from fastpets import Batch, ImageDataset, Loader
from tests.epochs import pixels_by_id, same

NUM_IMAGES, NUM_BATCHES = 11, 4
Epoch = tuple[list[int], torch.Tensor]  # ids and images


def make_loader(source: Path | ImageDataset, **settings: Any) -> Loader:
    settings = {"batch_size": 3, "size": 32, "augment": True, "drop_last": False, "num_workers": 2, **settings}
    return Loader(source, device="cpu", **settings)


@pytest.fixture
def loader(make_folder: Callable[..., Path]) -> Loader:
    """A loader that has been used: its pipeline has opened what it opens once."""
    loader = make_loader(make_folder(NUM_IMAGES))
    list(loader)
    return loader


def num_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastpets")]


def assert_next_is_whole(loader: Loader) -> None:
    """The next loop delivers every item exactly once, with the pixels of its epoch."""
    expected = make_loader(loader.dataset, batch_size=NUM_IMAGES)
    expected.set_epoch(loader.epoch)
    batches = list(loader)
    assert sorted(i for batch in batches for i in batch.ids) == list(range(NUM_IMAGES))
    found = {int(i): image for batch in batches for i, image in zip(batch.ids, batch.images, strict=True)}
    assert same(found, pixels_by_id(expected))


@contextlib.contextmanager
def nothing_left_behind(loader: Loader) -> Iterator[None]:
    """No more threads and open files after what is done within than before, and the next loop is whole."""
    before = num_open_files()
    yield
    assert own_threads() == []
    assert num_open_files() <= before
    assert_next_is_whole(loader)


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("leave_after", range(1, NUM_BATCHES + 1))
def test_a_break_after_any_batch_of_any_epoch(make_folder: Callable[..., Path], leave_after: int, cache: str) -> None:
    loader = make_loader(make_folder(NUM_IMAGES), cache=cache)
    list(make_loader(loader.dataset))
    for _ in range(3):
        with nothing_left_behind(loader):
            for number, _ in enumerate(loader, start=1):
                if number == leave_after:
                    break


def test_many_breaks_in_a_row(loader: Loader) -> None:
    with nothing_left_behind(loader):
        for _ in range(30):
            next(iter(loader))
        assert loader.epoch == 31


@pytest.mark.parametrize("leave_after", range(NUM_BATCHES))
def test_an_exception_in_the_body(loader: Loader, leave_after: int) -> None:
    with nothing_left_behind(loader), pytest.raises(ZeroDivisionError):
        [1 // (leave_after - number) for number, _ in enumerate(loader)]


def test_an_exception_in_the_transform_of_a_batch(loader: Loader) -> None:
    def fail(images: torch.Tensor, labels: torch.Tensor) -> None:
        raise ZeroDivisionError

    with nothing_left_behind(loader):
        loader.batch_transform = fail
        with pytest.raises(ZeroDivisionError):
            list(loader)
        loader.batch_transform = None


def test_an_iterator_that_is_dropped_half_used(loader: Loader) -> None:
    with nothing_left_behind(loader):
        batches = iter(loader)
        next(batches)
        assert own_threads() != []
        del batches
        gc.collect()


def test_an_iterator_in_a_cycle_that_the_garbage_collector_finds(loader: Loader) -> None:
    with nothing_left_behind(loader):
        holder: list[Any] = [iter(loader)]
        holder.append(holder)
        next(holder[0])
        assert own_threads() != []
        del holder
        gc.collect()


def test_iterators_that_are_never_advanced(loader: Loader) -> None:
    with nothing_left_behind(loader):
        kept = [iter(loader) for _ in range(5)]
        assert (own_threads(), loader.epoch) == ([], 1)
        assert_next_is_whole(loader)
        del kept


def test_loops_nested_and_left_at_every_depth(loader: Loader) -> None:
    with nothing_left_behind(loader):
        for outer in loader:
            kept = outer.images.clone()
            for number, _ in enumerate(loader):
                assert_next_is_whole(loader)
                if number == 1:
                    break
            assert torch.equal(outer.images, kept)


def delivered(batches: Iterable[Batch]) -> Epoch:
    """The ids in the order in which they came, and their images."""
    kept = list(batches)
    return [int(i) for batch in kept for i in batch.ids], torch.cat([batch.images for batch in kept])


def assert_epochs(found: list[Epoch], expected: Loader) -> None:
    """What loops delivered is the epochs from 1 on, as an unused loader has them, each once, in whatever order."""
    expected.set_epoch(1)
    for _ in found:
        ids, images = delivered(expected)
        assert sum(ids == others and torch.equal(images, theirs) for others, theirs in found) == 1


def test_interleaved_loops_are_each_an_epoch_of_its_own(loader: Loader) -> None:
    with nothing_left_behind(loader):
        by_turns = zip(*(iter(loader) for _ in range(3)), strict=True)
        found = [delivered(batches) for batches in zip(*by_turns, strict=True)]
    assert_epochs(found, make_loader(loader.dataset))


@pytest.mark.parametrize("sampled", [False, True])
def test_loops_in_several_threads_are_each_an_epoch_of_its_own(loader: Loader, sampled: bool) -> None:
    settings = {"sampler": RandomSampler(range(NUM_IMAGES))} if sampled else {}
    shared = make_loader(loader.dataset, **settings)
    list(shared)
    interval = sys.getswitchinterval()
    torch.manual_seed(3)
    with nothing_left_behind(shared), ThreadPoolExecutor(4) as pool:
        sys.setswitchinterval(1e-6)  # so that threads meet everywhere
        try:
            found = list(pool.map(lambda _: delivered(shared), range(40)))
        finally:
            sys.setswitchinterval(interval)
    assert torch.initial_seed() == 3  # torch's own generator is as it was
    assert_epochs(found, make_loader(loader.dataset, **settings))


def test_breaks_in_several_threads(loader: Loader) -> None:
    def leave(after: int) -> None:
        for number, _ in enumerate(loader, start=1):
            if number == after:
                break

    with nothing_left_behind(loader), ThreadPoolExecutor(4) as pool:
        list(pool.map(leave, [1, 2, 3, 4] * 5))


def deliver(source: ImageDataset | Loader, answer: Connection) -> None:
    """What a child process does: epoch 1 of the loader that it has from its parent, or of its own of these items."""
    loader = source if isinstance(source, Loader) else make_loader(source)
    loader.set_epoch(1)
    ids, images = delivered(loader)
    answer.send((ids, images.numpy()))


@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize("method", ["fork", "spawn", "inherit"])
def test_a_child_process_loads_and_the_parent_goes_on(loader: Loader, method: str, under_way: bool) -> None:
    resource_tracker.ensure_running()  # which stays, with an open file
    context = multiprocessing.get_context("spawn" if method == "spawn" else "fork")
    with nothing_left_behind(loader):
        batches = iter(loader)
        first = [next(batches)] if under_way else []
        ours, theirs = context.Pipe()
        child = context.Process(target=deliver, args=(loader if method == "inherit" else loader.dataset, theirs))
        child.start()
        theirs.close()
        with ours:
            answered = ours.poll(60)
            ids, images = ours.recv() if answered else ([], np.zeros(0))
        child.join(60 if answered else 0)
        exit_code = child.exitcode
        child.kill()
        child.join()
        child.close()
        mine = delivered([*first, *batches])
    assert exit_code == 0
    assert_epochs([(ids, torch.from_numpy(images))], make_loader(loader.dataset))
    assert_epochs([mine], make_loader(loader.dataset))


HALF_USED = """
import sys
from pathlib import Path
from tests.loading.test_leaving import make_loader
loader = make_loader(Path(sys.argv[1]))
list(loader)
batches = iter(loader)
next(batches)
"""


def test_a_process_that_ends_with_a_half_used_iterator_ends_well(make_folder: Callable[..., Path]) -> None:
    command = [sys.executable, "-c", HALF_USED, make_folder(NUM_IMAGES)]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")

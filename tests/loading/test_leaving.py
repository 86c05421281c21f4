"""A loop that is left in any way leaves no threads or open files, and the next loop delivers a whole epoch."""

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
    """A loader after one epoch, so that files that DALI opens only once are open."""
    loader = make_loader(make_folder(NUM_IMAGES))
    list(loader)
    return loader


def num_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastpets")]


def assert_next_epoch_is_complete(loader: Loader) -> None:
    """The next loop delivers every item exactly once, with the pixels of its epoch."""
    expected = make_loader(loader.dataset, batch_size=NUM_IMAGES)
    expected.set_epoch(loader.epoch)
    batches = list(loader)
    assert sorted(i for batch in batches for i in batch.ids) == list(range(NUM_IMAGES))
    found = {int(i): image for batch in batches for i, image in zip(batch.ids, batch.images, strict=True)}
    assert same(found, pixels_by_id(expected))


@contextlib.contextmanager
def no_leftovers(loader: Loader) -> Iterator[None]:
    """Checks that the body leaves no threads or open files, and that the next loop delivers a whole epoch."""
    before = num_open_files()
    yield
    assert own_threads() == []
    assert num_open_files() <= before
    assert_next_epoch_is_complete(loader)


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("leave_after", range(1, NUM_BATCHES + 1))
def test_a_break_after_any_batch_of_any_epoch(make_folder: Callable[..., Path], leave_after: int, cache: str) -> None:
    loader = make_loader(make_folder(NUM_IMAGES), cache=cache)
    list(make_loader(loader.dataset))
    for _ in range(3):
        with no_leftovers(loader):
            for number, _ in enumerate(loader, start=1):
                if number == leave_after:
                    break


def test_many_breaks_in_a_row(loader: Loader) -> None:
    with no_leftovers(loader):
        for _ in range(30):
            next(iter(loader))
        assert loader.epoch == 31


@pytest.mark.parametrize("leave_after", range(NUM_BATCHES))
def test_an_exception_in_the_body(loader: Loader, leave_after: int) -> None:
    with no_leftovers(loader), pytest.raises(ZeroDivisionError):
        [1 // (leave_after - number) for number, _ in enumerate(loader)]


def test_an_exception_in_the_transform_of_a_batch(loader: Loader) -> None:
    def fail(images: torch.Tensor, labels: torch.Tensor) -> None:
        raise ZeroDivisionError

    with no_leftovers(loader):
        loader.batch_transform = fail
        with pytest.raises(ZeroDivisionError):
            list(loader)
        loader.batch_transform = None


def test_an_iterator_that_is_dropped_half_used(loader: Loader) -> None:
    with no_leftovers(loader):
        batches = iter(loader)
        next(batches)
        assert own_threads() != []
        del batches
        gc.collect()


def test_an_iterator_in_a_cycle_that_the_garbage_collector_finds(loader: Loader) -> None:
    with no_leftovers(loader):
        holder: list[Any] = [iter(loader)]
        holder.append(holder)
        next(holder[0])
        assert own_threads() != []
        del holder
        gc.collect()


def test_iterators_that_are_never_advanced(loader: Loader) -> None:
    with no_leftovers(loader):
        kept = [iter(loader) for _ in range(5)]
        assert (own_threads(), loader.epoch) == ([], 1)
        assert_next_epoch_is_complete(loader)
        del kept


def test_nested_loops_that_are_left(loader: Loader) -> None:
    with no_leftovers(loader):
        for outer in loader:
            kept = outer.images.clone()
            for number, _ in enumerate(loader):
                assert_next_epoch_is_complete(loader)
                if number == 1:
                    break
            assert torch.equal(outer.images, kept)


def delivered(batches: Iterable[Batch]) -> Epoch:
    """The ids in the order in which they came, and their images."""
    kept = list(batches)
    return [int(i) for batch in kept for i in batch.ids], torch.cat([batch.images for batch in kept])


def assert_epochs(found: list[Epoch], expected: Loader) -> None:
    """Checks that loops delivered the epochs from 1 on, each once and in any order, as an unused loader does."""
    expected.set_epoch(1)
    for _ in found:
        ids, images = delivered(expected)
        assert sum(ids == others and torch.equal(images, theirs) for others, theirs in found) == 1


def test_interleaved_loops_each_deliver_an_epoch_of_their_own(loader: Loader) -> None:
    with no_leftovers(loader):
        by_turns = zip(*(iter(loader) for _ in range(3)), strict=True)
        found = [delivered(batches) for batches in zip(*by_turns, strict=True)]
    assert_epochs(found, make_loader(loader.dataset))


@pytest.mark.parametrize("sampled", [False, True])
def test_loops_in_several_threads_each_deliver_an_epoch_of_their_own(loader: Loader, sampled: bool) -> None:
    settings = {"sampler": RandomSampler(range(NUM_IMAGES))} if sampled else {}
    shared = make_loader(loader.dataset, **settings)
    list(shared)
    interval = sys.getswitchinterval()
    torch.manual_seed(3)
    with no_leftovers(shared), ThreadPoolExecutor(4) as pool:
        sys.setswitchinterval(1e-6)  # so that threads are switched at any line
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

    with no_leftovers(loader), ThreadPoolExecutor(4) as pool:
        list(pool.map(leave, [1, 2, 3, 4] * 5))


def deliver(source: ImageDataset | Loader, decoder: str, answer: Connection) -> None:
    """Runs in a child process: epoch 1 of the parent's loader, or of a new loader of the dataset."""
    loader = source if isinstance(source, Loader) else make_loader(source, decoder=decoder)
    loader.set_epoch(1)
    ids, images = delivered(loader)
    answer.send((ids, images.numpy()))


@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize("method", ["fork", "spawn", "inherit"])
def test_a_child_process_loads_while_the_parent_continues(
    loader: Loader, decoder: str, method: str, under_way: bool
) -> None:
    resource_tracker.ensure_running()  # which stays, with an open file
    context = multiprocessing.get_context("spawn" if method == "spawn" else "fork")
    with no_leftovers(loader):
        batches = iter(loader)
        first = [next(batches)] if under_way else []
        ours, theirs = context.Pipe()
        source = loader if method == "inherit" else loader.dataset
        child = context.Process(target=deliver, args=(source, decoder, theirs))
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
loader = make_loader(Path(sys.argv[1]), decoder=sys.argv[2])
list(loader)
batches = iter(loader)
next(batches)
"""


def test_a_process_that_ends_with_a_half_used_iterator_exits_with_status_0(
    make_folder: Callable[..., Path], decoder: str
) -> None:
    command = [sys.executable, "-c", HALF_USED, make_folder(NUM_IMAGES), decoder]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")

"""However a loop is left, nothing stays behind, and the next one delivers each picture once."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpets import Loader
from tests.epochs import pixels_by_id, same

SETTINGS: dict[str, Any] = {"size": 16, "augment": True, "batch_size": 3, "drop_last": False, "device": "cpu"}


@pytest.fixture
def loader(make_folder: Callable[..., Path]) -> Loader:
    loader = Loader(make_folder(11), **SETTINGS)
    list(loader)  # so that what one epoch hands on to the next is there
    return loader


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    """No more threads of ours and no more open files after a test than before it."""
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fastpets")]
    assert len(os.listdir("/proc/self/fd")) <= files + 4  # what Python opened for a module or a start of a process


def check_next_epoch(loader: Loader) -> None:
    """The next epoch is what a loader that was never left would deliver."""
    expected = Loader(loader.items, **SETTINGS)
    expected.set_epoch(loader.epoch)
    assert same(pixels_by_id(loader), pixels_by_id(expected))


@pytest.mark.parametrize("leave_after", range(1, 5))
def test_a_break_after_any_batch_of_any_epoch_costs_nothing(loader: Loader, leave_after: int) -> None:
    for _ in range(3):
        for number, _ in enumerate(loader, start=1):
            if number == leave_after:
                break
        check_next_epoch(loader)


def test_many_breaks_in_a_row_leave_no_threads_and_no_files(loader: Loader) -> None:
    for _ in range(30):
        next(iter(loader))
    assert loader.epoch == 31
    check_next_epoch(loader)


def test_an_iterator_that_is_dropped_or_never_begun_leaves_nothing(loader: Loader) -> None:
    iterator = iter(loader)
    next(iterator)
    del iterator
    iter(loader)
    assert loader.epoch == 2  # the one that was begun
    check_next_epoch(loader)


def test_an_exception_in_the_body_passes_through(loader: Loader) -> None:
    with pytest.raises(ZeroDivisionError):
        [1 // 0 for _ in loader]
    check_next_epoch(loader)


def test_loops_side_by_side_are_epochs_of_their_own(loader: Loader) -> None:
    first, second = iter(loader), iter(loader)
    found: list[dict[int, torch.Tensor]] = [{}, {}]
    for batches in zip(first, second, strict=True):
        for images, batch in zip(found, batches, strict=True):
            images |= zip(batch.ids.tolist(), batch.images, strict=True)
    for number, images in enumerate(found, start=1):
        loader.set_epoch(number)
        assert same(images, pixels_by_id(loader))


def test_loops_in_two_threads_are_epochs_of_their_own(loader: Loader) -> None:
    found: list[dict[int, torch.Tensor]] = []
    threads = [threading.Thread(target=lambda: found.append(pixels_by_id(loader))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loader.set_epoch(1)
    expected = [pixels_by_id(loader), pixels_by_id(loader)]
    assert len(found) == 2
    assert all(same(found[0], one) or same(found[1], one) for one in expected)


def load_in_child(folder: str, queue: Any) -> None:
    queue.put(sorted(pixels_by_id(Loader(folder, **SETTINGS))))


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_may_load_while_its_parent_does(loader: Loader, method: str) -> None:
    context = multiprocessing.get_context(method)
    iterator = iter(loader)
    next(iterator)
    queue = context.Queue()
    child = context.Process(target=load_in_child, args=(os.path.dirname(loader.items.paths[0]), queue))
    child.start()
    try:
        assert queue.get(timeout=60) == list(range(11))
    finally:
        child.kill()
        child.join()
        queue.close()
    assert sum(len(batch.ids) for batch in iterator) == 8
    check_next_epoch(loader)


IN_A_LOOP = """
import sys, time
from fastpets import Loader
loader = Loader(sys.argv[1], size=16, augment=True, batch_size=3, device="cpu")
while True:
    for batch in loader:
        print("batch", flush=True)
        time.sleep(0.01)
"""


def test_ctrl_c_ends_a_loop_at_once(make_folder: Callable[..., Path]) -> None:
    command = [sys.executable, "-c", IN_A_LOOP, str(make_folder(11))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(9):
            assert child.stdout.readline() == "batch\n"
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in errors


def test_python_ends_quietly_with_a_loop_half_way(make_folder: Callable[..., Path]) -> None:
    code = IN_A_LOOP.split("while")[0] + "batches = iter(loader); next(batches)"
    child = subprocess.run(
        [sys.executable, "-c", code, str(make_folder(11))], capture_output=True, text=True, check=True
    )
    assert child.stderr == ""

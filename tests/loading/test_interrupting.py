"""Ctrl-C at any line of an epoch leaves no threads or open files, and the next loop delivers a whole epoch."""

import itertools
import linecache
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import fastpets
from fastpets import Loader
from tests.images import drawing
from tests.loading.test_leaving import NUM_IMAGES, make_loader, no_leftovers, own_threads

Line = tuple[str, int]  # file and number


def run_with(before_a_line: Callable[[Line], None], loader: Loader) -> None:
    """Runs an epoch and calls `before_a_line` before every line of the package."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        file, number = frame.f_code.co_filename, frame.f_lineno
        if not file.startswith(os.path.dirname(fastpets.__file__)):
            return None
        # Python runs a with statement's line again at its end, where signals are not handled.
        if event == "line" and not linecache.getline(file, number).lstrip().startswith("with "):
            before_a_line((file, number))
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        list(loader)
    finally:
        sys.settrace(tracing)


@pytest.mark.slow
def test_an_interrupt_at_any_line_leaves_no_threads_or_open_files(make_folder: Callable[..., Path]) -> None:
    loader, lines = make_loader(make_folder(NUM_IMAGES)), list[Line]()
    list(loader)
    run_with(lines.append, loader)
    for line, times in Counter(lines).items():
        passes = itertools.count(1)

        def interrupt(here: Line, line: Line = line, times: int = times, passes: Iterator[int] = passes) -> None:
            if here == line and next(passes) == min(times, 2):  # the second time, more batches are in progress
                raise KeyboardInterrupt

        with no_leftovers(loader):
            with pytest.raises(KeyboardInterrupt):
                run_with(interrupt, loader)
            for thread in own_threads():
                thread.join(10)  # if the interrupt came during cleanup
    assert len(set(lines)) > 100


LOOP = """
import os, signal, sys, time
from pathlib import Path
from tests.loading.test_leaving import make_loader, no_leftovers, own_threads
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores SIGINT
loader = make_loader(Path(sys.argv[1]), decoder=sys.argv[2])
list(loader)

def loop():
    while True:
        for _ in loader:
            os.write(1, b"looping\\n")  # print may be interrupted before the line's end

"""
UNHANDLED = "loop()"
HANDLED = """
with no_leftovers(loader):
    try:
        loop()
    except KeyboardInterrupt:
        pass
    while own_threads():  # if the interrupt came during cleanup, or while a thread was being started
        time.sleep(0.01)
print("whole")
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images of a camera's size, with which nearly all of a loader's time is spent in waiting.

    Otherwise one signal in hundreds would come while a Condition is being entered, and leave its lock locked for ever:
    CPython does not guard these instructions.
    """
    for number in range(NUM_IMAGES):
        drawing(900, 1200, seed=number).save(tmp_path / f"kind{number % 2}_{number}.jpg")
    return tmp_path


def interrupted(program: str, folder: Path, decoder: str) -> tuple[int, list[str], str]:
    """Sends Ctrl-C to a child within an epoch. Returns its exit status, the last line it printed, and its errors."""
    command = [sys.executable, "-c", LOOP + program, folder, decoder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "looping\n"
        time.sleep(0.05)  # no longer between two batches, where a Condition is entered
        child.send_signal(signal.SIGINT)
        try:
            printed, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    return child.returncode, printed.splitlines()[-1:], errors


def test_ctrl_c_ends_a_process_with_keyboard_interrupt(photos: Path, decoder: str) -> None:
    status, _, errors = interrupted(UNHANDLED, photos, decoder)
    assert (status, errors.splitlines()[-1:]) == (-signal.SIGINT, ["KeyboardInterrupt"]), errors
    assert "Exception ignored" not in errors


def test_after_ctrl_c_a_process_goes_on_with_whole_epochs(photos: Path, decoder: str) -> None:
    assert interrupted(HANDLED, photos, decoder) == (0, ["whole"], "")

"""Ctrl-C at any line of an epoch leaves no threads or open files, and the next loop delivers a whole epoch."""

import itertools
import linecache
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import fastpets
from fastpets import Loader
from tests.loading.test_leaving import make_loader, no_leftovers, own_threads

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
    loader, lines = make_loader(make_folder(11)), list[Line]()
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


IN_A_CHILD = """
import os, signal, sys
from pathlib import Path
from tests.loading.test_leaving import make_loader, no_leftovers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores SIGINT
loader = make_loader(Path(sys.argv[1]))
list(loader)
with no_leftovers(loader):
    try:
        while True:
            for _ in loader:
                os.write(1, b"looping\\n")  # print may be interrupted before the line's end
    except KeyboardInterrupt as error:
        interrupt = error
print("whole")
raise interrupt
"""


def test_ctrl_c_ends_a_process_with_keyboard_interrupt(make_folder: Callable[..., Path]) -> None:
    command = [sys.executable, "-c", IN_A_CHILD, make_folder(11)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "looping\n"
        child.send_signal(signal.SIGINT)
        try:
            printed, complaints = child.communicate(timeout=60)
        finally:
            child.kill()
    assert (child.returncode, printed.splitlines()[-1]) == (-signal.SIGINT, "whole"), complaints
    assert complaints.splitlines()[-1] == "KeyboardInterrupt"
    assert "Exception ignored" not in complaints

"""Progress bars for terminals and notebooks."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from html import escape
from typing import TypeVar

from fastpets.utils.notebook import CellOutput, is_in_notebook

SECONDS_BETWEEN_UPDATES = 0.2  # in a notebook

Item = TypeVar("Item")


def is_on_terminal() -> bool:
    """Whether standard error is a terminal; it is None in a process that was started without one."""
    return sys.stderr is not None and sys.stderr.isatty()


def track(iterable: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """Yields the items, with a progress bar on standard error if that is a terminal, or in a notebook's cell.

    Without a `total` the bar shows activity, not a share. Under torchrun only the process of rank 0 shows it.
    """
    if total == 0 or os.environ.get("RANK", "0") != "0":
        yield from iterable
    elif is_in_notebook():
        yield from _track_in_notebook(iterable, description, total)
    elif is_on_terminal():
        yield from _track_on_terminal(iterable, description, total)
    else:
        yield from iterable


def _track_on_terminal(iterable: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(iterable, total=total, description=description)


_bar = CellOutput()  # one for all bars of a cell


def _track_in_notebook(iterable: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """rich needs ipywidgets for this, and its bar is empty in a saved notebook."""
    started = shown = time.monotonic()
    try:
        for number, item in enumerate(iterable):
            if (now := time.monotonic()) - shown > SECONDS_BETWEEN_UPDATES:
                _bar.show(_html_bar(escape(description), number, total, (now - started) / max(number, 1)))
                shown = now
            yield item
    finally:
        if shown > started:
            _bar.show("")


def _html_bar(description: str, number: int, total: int | None, seconds_each: float) -> str:
    if total is None:
        return f"{description} <progress></progress> {number}"
    left = f"{seconds_each * (total - number):.0f} s left"
    return f'{description} <progress value="{number}" max="{total}"></progress> {number}/{total}, {left}'

"""Progress bars for terminals."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def is_on_terminal() -> bool:
    """Whether standard error is a terminal; it is None in a process that was started without one."""
    return sys.stderr is not None and sys.stderr.isatty()


def track(iterable: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """Yields the items, with a progress bar on standard error if that is a terminal.

    Without a `total` the bar shows activity, not a share. Under torchrun only the process of rank 0 shows it.
    """
    if total == 0 or not is_on_terminal() or os.environ.get("RANK", "0") != "0":
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(iterable, total=total, description=description)

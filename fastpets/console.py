"""What a person at a terminal sees while work goes on: progress bars, and one line an epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from fastpets.learner import EpochResult

Item = TypeVar("Item")


def track(iterable: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """The same items, with a progress bar on standard error while they last, if that is a terminal.

    Without a `total` the bar only shows that something moves.
    """
    if total == 0 or not sys.stderr.isatty():
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(iterable, total=total, description=description)


class EpochTable:
    """Prints a line for each epoch, under a heading for each phase: fastai's columns, and pictures per second."""

    HEADING = f"{'epoch':>5}  {'train_loss':>10}  {'valid_loss':>10}  {'error_rate':>10}  {'time':>6}  {'images/s':>8}"

    def __call__(self, result: EpochResult) -> None:
        if result.epoch == 0:
            print(f"{result.phase}\n{self.HEADING}", flush=True)
        minutes, seconds = divmod(round(result.seconds), 60)
        print(
            f"{result.epoch:>5}  {result.train_loss:>10.6f}  {result.valid_loss:>10.6f}  {result.error_rate:>10.6f}"
            f"  {f'{minutes:02}:{seconds:02}':>6}  {result.images_per_sec:>8.1f}",
            flush=True,
        )

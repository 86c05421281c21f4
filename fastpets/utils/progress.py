"""What a person at a terminal sees while work goes on: progress bars, and one line an epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from fastpets.training.learner import EpochResult

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
    """Prints a line for each epoch, under a heading for each phase: fastai's columns, images per second, and how much
    of the training's time went by waiting for images. What is of one class alone is left out."""

    def __call__(self, result: EpochResult) -> None:
        names = [name for name in result.metrics if "/" not in name]
        if result.epoch == 0:
            columns = ("train_loss", "valid_loss", "error_rate", *names)
            heading = "  ".join(f"{column:>10}" for column in columns)
            print(f"{result.phase}\nepoch  {heading}  {'time':>6}  {'images/s':>8}  bound by", flush=True)
        values = (result.train_loss, result.valid_loss, result.error_rate, *(result.metrics[name] for name in names))
        numbers = "  ".join(f"{value:>10.6f}" for value in values)
        minutes, seconds = divmod(round(result.seconds), 60)
        print(
            f"{result.epoch:>5}  {numbers}  {f'{minutes:02}:{seconds:02}':>6}  {result.images_per_sec:>8.1f}"
            f"  input {result.input_share:.0%} / compute {1 - result.input_share:.0%}",
            flush=True,
        )

"""The results of a learner's epochs, a printer for them, and the progress of the current fit."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass
from typing import Any

from fastpets.errors import counted
from fastpets.utils import notebook

MAX_WIDTH = 80  # characters of a printed line


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Results of one epoch.

    Attributes:
        epoch: number of the epoch in its phase, from 0.
        batches: number of training batches in all epochs up to and including this one.
        train_loss: fastai's smoothed loss, as in Recorder.
        metrics: values by name; those of single classes as `NAME/CLASS`.
        seconds: of training and validation.
        images_per_sec: of training alone, over all processes.
        input_share: share of the training time in which this process waited for images, 0 to 1.

    After an interruption within the epoch, the last three are those of the rest of the epoch.
    """

    phase: str
    epoch: int
    batches: int
    train_loss: float
    valid_loss: float
    error_rate: float
    metrics: dict[str, float]
    seconds: float
    images_per_sec: float
    input_share: float


@dataclass(kw_only=True)
class Progress:
    """How far a fit is.

    Attributes:
        phase: number of the current phase, from 0; the number of phases after the last one.
        rates: the highest rate of each layer group in the phase; None before the phase has begun.
        epoch: number of the current epoch in the phase, from 0.
        num_steps: optimizer steps that are done in the phase.
        num_batches: batches that are done in the epoch.
        is_trained: whether the epoch's training is complete, and its validation is next.
        images_per_sec, input_share: as in EpochResult, if `is_trained`.
    """

    phase: int = 0
    rates: list[float] | None = None
    epoch: int = 0
    num_steps: int = 0
    num_batches: int = 0
    is_trained: bool = False
    images_per_sec: float = 0.0
    input_share: float = 0.0


class History(list[EpochResult]):
    """The results of a learner's epochs. A notebook shows them as a table."""

    def __repr__(self) -> str:
        return counted(len(self), "epoch") + (f", the last with error_rate {self[-1].error_rate:.6f}" if self else "")

    def _repr_html_(self) -> str:
        rows = [_row(result) for result in self]
        names = dict.fromkeys(name for row in rows for name in row)  # epochs may have different metrics
        return notebook.table([{name: row.get(name, "") for name in names} for row in rows]) if self else repr(self)


def _row(result: EpochResult) -> dict[str, Any]:
    """An epoch's row in a notebook's table, without metrics of single classes."""
    values = {"train_loss": result.train_loss, "valid_loss": result.valid_loss, "error_rate": result.error_rate}
    values |= {name: value for name, value in result.metrics.items() if "/" not in name}
    minutes, seconds = divmod(round(result.seconds), 60)
    return {
        "phase": result.phase,
        "epoch": result.epoch,
        **{name: f"{value:.6f}" for name, value in values.items()},
        "time": f"{minutes:02}:{seconds:02}",
        "images/s": f"{result.images_per_sec:.0f}",
        "waiting": f"{result.input_share:.0%}",
    }


class EpochPrinter:
    """A callback that prints a line for each epoch, and a heading above its first one and that of each phase.

    The columns are fastai's, then images per second and waiting, the share of the training time in which training
    waited for images. A line has at most MAX_WIDTH characters: where there are many metrics, first images per second,
    then waiting is left out, then metrics continue on lines below. Metrics of single classes are left out.
    In a notebook it is one table for each cell, which grows.
    """

    def __init__(self) -> None:
        self.phase: str | None = None  # of the latest epoch
        self._output, self._shown = notebook.CellOutput(), History()

    def on_epoch_end(self, learner: object, result: EpochResult) -> None:
        """Prints the line of an epoch."""
        if notebook.is_in_notebook():
            self._shown = History([result] if self._output.is_new() else [*self._shown, result])
            self._output.show(self._shown._repr_html_())
            return
        columns, below = _columns(result)
        if result.epoch == 0 or result.phase != self.phase:
            print(f"{result.phase}\n{'  '.join(f'{name:>{width}}' for name, width, _ in columns)}")
        self.phase = result.phase
        print("  ".join(f"{value:>{width}}" for _, width, value in columns))
        if below:
            for line in textwrap.wrap("  ".join(below), MAX_WIDTH - 7):
                print(" " * 7 + line.replace("\N{NO-BREAK SPACE}", " "))
        sys.stdout.flush()


def _columns(result: EpochResult) -> tuple[list[tuple[str, int, str]], list[str]]:
    """The columns of a line, each with its heading, width and value, and the metrics for which there is no room."""
    minutes, seconds = divmod(round(result.seconds), 60)
    losses = {name: getattr(result, name) for name in ("train_loss", "valid_loss", "error_rate")}
    columns = [("epoch", 5, str(result.epoch)), *(_column(name, value) for name, value in losses.items())]
    time = ("time", 6, f"{minutes:02}:{seconds:02}")
    speed = [("images/s", 8, f"{result.images_per_sec:.1f}"), ("waiting", 7, f"{result.input_share:.0%}")]
    below: list[str] = []
    for name, value in result.metrics.items():
        if "/" not in name:
            column = _column(name, value)
            if not below and _width([*columns, column, time]) <= MAX_WIDTH:
                columns.append(column)
            else:
                below.append(f"{name}\N{NO-BREAK SPACE}{value:.6f}")
    columns.append(time)
    fitting = next(shown for shown in (speed, speed[1:], []) if _width([*columns, *shown]) <= MAX_WIDTH)
    return [*columns, *fitting], below


def _column(name: str, value: float) -> tuple[str, int, str]:
    text = f"{value:.6f}"
    return name, max(len(name), len(text), 8), text


def _width(columns: list[tuple[str, int, str]]) -> int:
    return sum(width + 2 for _, width, _ in columns) - 2

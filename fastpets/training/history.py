"""A learner's history: the results of its epochs, how each is printed, and the progress of the current fit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Results of one epoch.

    Attributes:
        batches: training batches in all epochs up to and including this one.
        train_loss: smoothed as fastai smooths it.
        metrics: values by name; those of single classes as `NAME/CLASS`.
        seconds: of the whole epoch.
        images_per_sec: of training alone, over all processes.
        input_share: share of the training time in which this process waited for images, 0 to 1.
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
    """Where a fit is: in which of its phases, and in which epoch and step of that."""

    phase: int = 0
    rates: list[float] | None = None  # the phase's highest rate of each layer group; None before the phase begins
    epoch: int = 0
    num_steps: int = 0  # optimizer steps in the phase
    num_batches: int = 0  # in the epoch
    is_trained: bool = False  # all batches of the epoch are done, and its validation is next


def print_epoch(result: EpochResult) -> None:
    """Prints one line, after a heading in a phase's first epoch: fastai's columns, images per second, and which share
    of the training time was input-bound or compute-bound. Metrics of single classes are left out."""
    names = [name for name in result.metrics if "/" not in name]
    if result.epoch == 0:
        columns = ("train_loss", "valid_loss", "error_rate", *names)
        heading = "  ".join(f"{column:>10}" for column in columns)
        print(f"{result.phase}\nepoch  {heading}  {'time':>6}  {'images/s':>8}  share of time", flush=True)
    values = (result.train_loss, result.valid_loss, result.error_rate, *(result.metrics[name] for name in names))
    numbers = "  ".join(f"{value:>10.6f}" for value in values)
    minutes, seconds = divmod(round(result.seconds), 60)
    print(
        f"{result.epoch:>5}  {numbers}  {f'{minutes:02}:{seconds:02}':>6}  {result.images_per_sec:>8.1f}"
        f"  input {result.input_share:.0%} / compute {1 - result.input_share:.0%}",
        flush=True,
    )

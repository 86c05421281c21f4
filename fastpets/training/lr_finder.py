"""The learning rate finder (L. N. Smith, "Cyclical Learning Rates", WACV 2017), with fastai's suggestions."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastpets.errors import FastpetsError, counted
from fastpets.training import distributed, plots
from fastpets.training.phases import MAX_RATE, MIN_RATE
from fastpets.training.recorder import SMOOTHING
from fastpets.training.train_step import TrainStep
from fastpets.utils.figures import File
from fastpets.utils.progress import track
from fastpets.utils.validation import check_range

DIVERGED = 4  # a loss above this many times the lowest one so far ends the sweep
SKIPPED_LAST = 5  # points at the end that suggestions and plots leave out, since the loss explodes there
MIN_POINTS = 3  # that a suggestion needs
# Beyond these, noise decides where the suggestions are.
MAX_RATIO = 100  # of the suggestions steep and valley
MIN_FALL = 0.05  # of the loss, as a share of the first one


@dataclass(frozen=True, repr=False, eq=False)  # arrays have no single answer to ==
class RateCurve:
    """Smoothed losses (n,) of a sweep, and the learning rates (n,) at which they were reached.

    The suggestions `minimum`, `steep` and `valley` leave out the first `skip` points, the last five, and everything
    from the first loss on that is not finite. They raise FastpetsError if fewer than MIN_POINTS points remain. A
    notebook shows the plot.
    """

    rates: np.ndarray
    losses: np.ndarray
    skip: int = 10

    @property
    def minimum(self) -> float:
        """A tenth of the rate with the lowest loss."""
        rates, losses = self._usable_part()
        return float(rates[losses.argmin()]) / 10

    @property
    def steep(self) -> float:
        """The rate at which the loss falls most steeply over the logarithm of the rate."""
        rates, losses = self._usable_part()
        return float(rates[(np.diff(losses) / np.diff(np.log(rates))).argmin()])

    @property
    def valley(self) -> float:
        """The rate in the middle of the longest descent: of the longest falling subsequence of losses."""
        rates, losses = self._usable_part()
        lengths, longest = np.ones(len(losses), np.int64), 0
        for i in range(1, len(losses)):
            lengths[i] = 1 + lengths[:i][losses[:i] > losses[i]].max(initial=0)
            longest = i if lengths[i] > lengths[longest] else longest
        # fastai's formula. It counts from one point before the subsequence, to one third plus half a third of it, each
        # rounded down. If only the second loss is lower than the first, fastai's index is -1, the highest rate, after
        # the loss has risen again. Here it is 0.
        start = longest - int(lengths[longest]) if longest else 0
        third = (longest - start) / 3
        return float(rates[max(0, start + int(third) + int(third / 2))])

    def __iter__(self) -> Iterator[float]:
        """`minimum` and `steep`, as in fastai's book: `lr_min, lr_steep = learner.lr_find()`."""
        yield self.minimum
        yield self.steep

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, str]]) -> RateCurve:
        """The curve of a table's `rows`."""
        rates, losses = (np.array([float(row[name]) for row in rows]) for name in ("lr", "loss"))
        return cls(rates, losses, sum(row.get("skipped", "") == "yes" for row in rows))

    def rows(self) -> list[dict[str, Any]]:
        """A table: the rates, the losses, and whether the suggestions skip the first of them."""
        return [
            {"lr": lr, "loss": loss, "skipped": "yes" if number < self.skip else "no"}
            for number, (lr, loss) in enumerate(zip(self.rates.tolist(), self.losses.tolist(), strict=True))
        ]

    def shown(self) -> tuple[np.ndarray, np.ndarray]:
        """The rates and losses to plot: without the last ones, if there are many."""
        part = slice(None, -SKIPPED_LAST) if len(self.losses) > 2 * SKIPPED_LAST else slice(None)
        return self.rates[part], self.losses[part]

    def plot(self, file: File = None) -> None:
        """Plots the curve and its suggestions, if it has any, as a PNG file or in pyplot's current figure."""
        plots.plot_rate_curve(*self.shown(), self.suggestions(), file)

    def suggestions(self) -> dict[str, float]:
        """The suggestions by their names; none if there are too few points, which the plot then shows."""
        try:
            return {"valley": self.valley, "steep": self.steep, "minimum / 10": self.minimum}
        except FastpetsError:
            return {}

    def warning(self) -> str | None:
        """A line if the curve is too noisy to trust its suggestions, else None."""
        _, losses = self._usable_part()
        fall = (losses[0] - losses.min()) / max(abs(losses[0]), 1e-12)
        ratio = max(self.steep, self.valley) / min(self.steep, self.valley)
        if fall >= MIN_FALL and ratio <= MAX_RATIO:
            return None
        found = f"the loss fell by only {fall:.0%}" if fall < MIN_FALL else f"valley and steep differ {ratio:.0f}-fold"
        return f"the curve is too noisy to trust these rates: {found}; use a larger batch_size or more images"

    def __repr__(self) -> str:
        try:
            suggested = f"valley={self.valley:.2e}, steep={self.steep:.2e}, minimum={self.minimum:.2e}"
        except FastpetsError:
            suggested = "too few to suggest a rate"
        return f"RateCurve({len(self.rates)} rates from {self.rates[0]:.2e} to {self.rates[-1]:.2e}, {suggested})"

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.plot(file)
        return file.getvalue()

    def _usable_part(self) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.skip, -SKIPPED_LAST)
        rates, losses = self.rates[part], self.losses[part]
        if (not_finite := ~np.isfinite(losses)).any():
            rates, losses = rates[: not_finite.argmax()], losses[: not_finite.argmax()]
        if len(losses) < MIN_POINTS:
            raise FastpetsError(
                f"the learning rate finder stopped after {counted(len(self.losses), 'step')}, at a rate of "
                f"{self.rates[-1]:.1e}, where the loss was {self.losses[-1]:.3g}: too few to suggest a rate; "
                f"start at a rate below lowest={self.rates[0]:.1e}, or look at the images"
            )
        return rates, losses


def sweep(
    train_step: TrainStep,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    lowest: float,
    highest: float,
    num_steps: int,
) -> RateCurve:
    """Trains on up to `num_steps` batches at a rate that grows from `lowest` to `highest`, until the loss diverges.

    The first tenth of the steps ends it only if the loss is not finite: there the average is that of a few batches, of
    which one may be low by chance. All layer groups have the same rate. It changes the weights; Learner.lr_find
    restores them. Raises InvalidArgumentError.
    """
    check_range("lowest", lowest, MIN_RATE, MAX_RATE)
    check_range("highest", highest, lowest, MAX_RATE)
    check_range("num_steps", num_steps, MIN_POINTS + SKIPPED_LAST, 1_000_000)
    rates: list[float] = []
    losses: list[float] = []
    average, best, skip = 0.0, math.inf, num_steps // 10
    train_step.train_mode()
    for step, (images, labels) in enumerate(track(batches, "finding a learning rate", num_steps)):
        rate = lowest * (highest / lowest) ** (step / num_steps)
        for group in train_step.optimizer.param_groups:
            group["lr"] = rate
        loss = train_step.step(images, labels)
        average = SMOOTHING * average + (1 - SMOOTHING) * float(distributed.mean(loss))
        rates.append(rate)
        losses.append(average / (1 - SMOOTHING ** (step + 1)))
        if step >= skip:
            best = min(best, losses[-1])
        if step + 1 == num_steps or not math.isfinite(losses[-1]) or losses[-1] > DIVERGED * best:
            break
    return RateCurve(np.array(rates), np.array(losses), skip)

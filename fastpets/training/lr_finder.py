"""The learning-rate finder (L. N. Smith, "Cyclical Learning Rates", WACV 2017), with fastai's suggestions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastpets.errors import FastpetsError
from fastpets.training import distributed, plots
from fastpets.training.recorder import SMOOTHING
from fastpets.training.train_step import TrainStep
from fastpets.utils.progress import track

DIVERGED = 4  # times the lowest loss so far
SKIPPED_LAST = 5  # points that suggestions leave out at the end, where the loss explodes


@dataclass(frozen=True)
class RateCurve:
    """Smoothed losses (n,) of a sweep, and the learning rates (n,) at which they were reached.

    The suggestions `minimum`, `steep` and `valley` leave out the first `skip` points, the last five, and everything
    from the first loss on that is not finite. They raise FastpetsError if fewer than three points remain.
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
        # As fastai computes it: one third plus half a third, each rounded down. Where no loss falls, fastai's
        # subsequence starts at -1, and so does this one.
        start = longest - int(lengths[longest]) if longest else 0
        third = (longest - start) / 3
        return float(rates[start + int(third) + int(third / 2)])

    def plot(self, file: str | Path | None = None) -> None:
        """Plots the curve and its suggestions, as a PNG file or in pyplot's current figure."""
        suggestions = {"steep": self.steep, "valley": self.valley, "minimum / 10": self.minimum}
        plots.plot_rate_curve(self.rates, self.losses, suggestions, file)

    def _usable_part(self) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.skip, -SKIPPED_LAST)
        rates, losses = self.rates[part], self.losses[part]
        if (not_finite := ~np.isfinite(losses)).any():
            rates, losses = rates[: not_finite.argmax()], losses[: not_finite.argmax()]
        if len(losses) < 3:
            raise FastpetsError(
                f"the loss diverged after {len(self.losses)} steps, at a learning rate of {self.rates[-1]:.1e}: too "
                "few to suggest a rate; start the sweep at a lower rate, or look at the images"
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

    All layer groups have the same rate. The trained weights stay; Learner.lr_find restores them.
    """
    rates: list[float] = []
    losses: list[float] = []
    average, best = 0.0, math.inf
    train_step.train_mode()
    for step, (images, labels) in enumerate(track(batches, "finding a learning rate", num_steps)):
        rate = lowest * (highest / lowest) ** (step / num_steps)
        for group in train_step.optimizer.param_groups:
            group["lr"] = rate
        loss = train_step.training_step(images, labels)
        average = SMOOTHING * average + (1 - SMOOTHING) * float(distributed.mean(loss))
        rates.append(rate)
        losses.append(average / (1 - SMOOTHING ** (step + 1)))
        best = min(best, losses[-1])
        if step + 1 == num_steps or not losses[-1] <= DIVERGED * best:
            break
    return RateCurve(np.array(rates), np.array(losses), skip=num_steps // 10)

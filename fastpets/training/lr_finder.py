"""The learning-rate finder (L. N. Smith, "Cyclical Learning Rates", WACV 2017), with fastai's suggestions."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastpets.errors import FastpetsError
from fastpets.loading.batch import Batch
from fastpets.training import distributed
from fastpets.training.recorder import SMOOTHING
from fastpets.utils.progress import track

if TYPE_CHECKING:
    from fastpets.training.learner import Learner

DIVERGED = 4  # times the lowest loss so far
SKIPPED_LAST = 5  # points that are left out of suggestions: there the loss explodes


@dataclass(frozen=True)
class RateCurve:
    """The smoothed losses (n,) of a sweep and the rates (n,) that they were reached at.

    The suggestions look at it without its first `skip` points, a tenth of the sweep, its last five, and what comes
    after a loss that is no number. They raise FastpetsError if fewer than three points are left.
    """

    rates: np.ndarray
    losses: np.ndarray
    skip: int = 10

    @property
    def minimum(self) -> float:
        """A tenth of the rate with the lowest loss."""
        rates, losses = self._clear_part()
        return float(rates[losses.argmin()]) / 10

    @property
    def steep(self) -> float:
        """Where the loss falls most steeply over the logarithm of the rate."""
        rates, losses = self._clear_part()
        return float(rates[(np.diff(losses) / np.diff(np.log(rates))).argmin()])

    @property
    def valley(self) -> float:
        """Half way down the second third of the longest descent: of the longest falling subsequence of losses."""
        rates, losses = self._clear_part()
        lengths, longest = np.ones(len(losses), np.int64), 0
        for i in range(1, len(losses)):
            lengths[i] = 1 + lengths[:i][losses[:i] > losses[i]].max(initial=0)
            longest = i if lengths[i] > lengths[longest] else longest
        # As fastai: of three lengths, the first whole one and a half of it, both rounded down. Where nothing falls, its
        # begin lies at -1, and so do we.
        start = longest - int(lengths[longest]) if longest else 0
        third = (longest - start) / 3
        return float(rates[start + int(third) + int(third / 2)])

    def plot(self, file: str | Path | None = None) -> None:
        """Draws the curve and its suggestions, into a PNG file or the figure that is current."""
        from fastpets.training import plots

        plots.plot_rate_curve(self, file)

    def _clear_part(self) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.skip, -SKIPPED_LAST)
        rates, losses = self.rates[part], self.losses[part]
        if (unclear := ~np.isfinite(losses)).any():
            rates, losses = rates[: unclear.argmax()], losses[: unclear.argmax()]
        if len(losses) < 3:
            raise FastpetsError(
                f"the loss diverged after {len(self.losses)} steps, at a rate of {self.rates[-1]:.1e}: too few to "
                "suggest a rate; begin the sweep lower, or look at the images"
            )
        return rates, losses


def lr_find(learner: Learner, lowest: float = 1e-7, highest: float = 10.0, num_steps: int = 100) -> RateCurve:
    """Trains with a rate that grows from step to step, until the loss has diverged, and puts all back as it was.

    One rate for all layer groups. A data set of fewer batches is gone through again and again.
    """
    before = copy.deepcopy(learner.state_dict())
    rates: list[float] = []
    losses: list[float] = []
    average, best = 0.0, math.inf
    try:
        with learner.random.in_use():
            learner.train_step.train_mode()
            batches = islice(_forever(learner), num_steps)
            for step, (images, labels) in enumerate(track(batches, "finding a learning rate", num_steps)):
                rate = lowest * (highest / lowest) ** (step / num_steps)
                for group in learner.train_step.optimizer.param_groups:
                    group["lr"] = rate
                loss = learner.train_step.training_step(images, labels)
                average = SMOOTHING * average + (1 - SMOOTHING) * float(distributed.mean(loss))
                rates.append(rate)
                losses.append(average / (1 - SMOOTHING ** (step + 1)))
                best = min(best, losses[-1])
                if not losses[-1] <= DIVERGED * best:
                    break
    finally:
        learner.load_state_dict(before)
    return RateCurve(np.array(rates), np.array(losses), skip=num_steps // 10)


def _forever(learner: Learner) -> Iterator[Batch]:
    """Epoch after epoch, less the batches that cannot be trained on."""
    return (batch for batch in chain.from_iterable(repeat(learner.train)) if learner.can_train_on(batch))

"""What the numbers of a run suggest to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastpets.training.learner import EpochResult

WAITS_TOO_MUCH = 0.1  # of the time, for images


def best_epoch(history: Sequence[EpochResult], num_valid: int) -> str | None:
    """Which epoch of the last phase was the best, if it was not the last, and what to do about it.

    With one cycle that epoch's weights are no good choice: the rate was still high. So the advice is to train again,
    for as many epochs.
    """
    phase = [result for result in history if result.phase == history[-1].phase] if history else []
    if len(phase) < 2:
        return None
    last, best = phase[-1], min(phase, key=lambda result: (result.error_rate, result.epoch))
    images = round((last.error_rate - best.error_rate) * num_valid)
    if images == 0:
        return None
    noise = math.sqrt(best.error_rate * (1 - best.error_rate) * num_valid)  # of a count of errors, binomial
    found = (
        f"epoch {best.epoch} of the {best.phase} phase had the lowest error rate, {best.error_rate:.4f}; the last has "
        f"{last.error_rate:.4f}, {images} {'image' if images == 1 else 'images'} more"
    )
    if images <= noise:
        return f"{found}, which is within the chance of {num_valid} images"
    return f"{found}: to train anew with --epochs {best.epoch + 1} for that phase may be better"


def input_waits(share: float, epochs: int, cached: bool) -> str | None:
    """What to do if training waited for its images, after so many epochs, with a cache or without.

    While a cache fills, in the first epoch, there is nothing to do but to wait.
    """
    if share <= WAITS_TOO_MUCH or (cached and epochs == 1):
        return None
    keep = "" if cached else "keep them decoded (--cache auto), "
    return (
        f"it waited for images {share:.0%} of the time: {keep}allow more --threads, or store images no larger than "
        "they are used"
    )

"""Hints for the next run, from the results of this one. They name parameters; the command line maps them to flags."""

import math
from collections.abc import Sequence

from fastpets.training.history import EpochResult

MAX_INPUT_SHARE = 0.1  # of the training time; above it, training is called input-bound


def best_epoch(history: Sequence[EpochResult], num_valid: int) -> str | None:
    """A hint if an earlier epoch of the last phase had a lower error rate than its last one, else None.

    With a one-cycle schedule the weights of an earlier epoch are no alternative, since its learning rate was still
    high. The hint is therefore to train again for as many epochs. `num_valid` is the number of validation images.
    """
    phase = [result for result in history if result.phase == history[-1].phase] if history else []
    if len(phase) < 2:
        return None
    last, best = phase[-1], min(phase, key=lambda result: (result.error_rate, result.epoch))
    num_images = round((last.error_rate - best.error_rate) * num_valid)
    if num_images == 0:
        return None
    deviation = math.sqrt(best.error_rate * (1 - best.error_rate) * num_valid)  # of a binomial number of errors
    finding = (
        f"epoch {best.epoch} of the {best.phase} phase had the lowest error rate, {best.error_rate:.4f}; the last has "
        f"{last.error_rate:.4f}, {num_images} {'image' if num_images == 1 else 'images'} more"
    )
    if num_images <= deviation:
        return f"{finding}, which may be chance with {num_valid} images"
    return f"{finding}: training again with epochs={best.epoch + 1} in that phase may give better weights"


def input_bound(input_share: float, num_epochs: int, cached: bool) -> str | None:
    """A hint if training is input-bound after `num_epochs` epochs, with a cache or without, else None.

    There is none after the first epoch with a cache, which that epoch fills.
    """
    if input_share <= MAX_INPUT_SHARE or (cached and num_epochs == 1):
        return None
    keep = "" if cached else "cache decoded images (cache='auto'), "
    return (
        f"training is input-bound: it waited for images {input_share:.0%} of the time; {keep}raise num_workers, or "
        "store smaller images"
    )

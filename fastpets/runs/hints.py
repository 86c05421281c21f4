"""Hints for the next run, from the results of this one. They name parameters; the commands translate these to flags."""

import math
from collections.abc import Sequence

from fastpets.errors import counted
from fastpets.training.history import EpochResult

MAX_INPUT_SHARE = 0.1  # of the training time; above it, training is called input-bound


def best_epoch(history: Sequence[EpochResult], num_valid: int) -> str | None:
    """A hint if an earlier epoch of the last phase had a lower error rate than the last epoch, else None.

    In a one-cycle schedule the learning rate is still high in an earlier epoch, so its weights are not the alternative.
    The hint is to train the phase again with fewer epochs. `num_valid` is the number of validation images.
    """
    starts = [place for place, result in enumerate(history) if result.epoch == 0]  # several phases may have one name
    phase = history[starts[-1] :] if starts else history
    if len(phase) < 2:
        return None
    last, best = phase[-1], min(phase, key=lambda result: (result.error_rate, result.epoch))
    num_images = round((last.error_rate - best.error_rate) * num_valid)
    if num_images == 0:
        return None
    deviation = math.sqrt(best.error_rate * (1 - best.error_rate) * num_valid)  # of a binomial number of errors
    finding = (
        f"epoch {best.epoch} of the {best.phase} phase had the lowest error rate, {best.error_rate:.4f}; the last has "
        f"{last.error_rate:.4f}, {counted(num_images, 'image')} more"
    )
    if num_images <= deviation:
        return f"{finding}, which may be chance with {counted(num_valid, 'image')}"
    num_epochs = best.epoch + 1
    return f"{finding}; for possibly better weights, train the {best.phase} phase for {counted(num_epochs, 'epoch')}"


def input_bound(input_share: float, num_epochs: int, cached: bool) -> str | None:
    """A hint if training is input-bound in the latest of the `num_epochs` epochs of this process, else None.

    There is none after the first epoch, which also loads libraries, compiles code and fills caches.
    """
    if input_share <= MAX_INPUT_SHARE or num_epochs == 1:
        return None
    keep = "" if cached else "cache decoded images (cache='auto'), "
    return (
        f"training is input-bound: it waited for images {input_share:.0%} of the time; {keep}raise num_workers, or "
        "store smaller images"
    )

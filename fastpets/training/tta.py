"""Test-time augmentation, as in fastai: averages an image's prediction with those of augmented versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastpets.errors import FastpetsError

if TYPE_CHECKING:
    from fastpets.training.learner import Learner

PLAIN_WEIGHT = 0.25  # of the prediction without augmentation; the mean of the augmented ones has the rest


def tta(learner: Learner, num_augmented: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (N, C) and labels (N,) of all validation images, in each process.

    Each image is also predicted `num_augmented` times with the training loader's augmentation. Raises FastpetsError if
    that has none.
    """
    if learner.train.augment is None:
        raise FastpetsError(
            "test-time augmentation, but the training loader has no augmentation to use; take augment=True, or leave "
            "test-time augmentation out"
        )
    whole = {"rank": 0, "world_size": 1}
    augmented = learner.valid.like(
        learner.valid.dataset, augment=learner.train.augment, shuffle=False, drop_last=False, **whole
    )
    predictions = [learner.get_preds(augmented)[0] for _ in range(num_augmented)]  # each pass is an epoch of its own
    plain, labels = learner.get_preds(learner.valid.like(learner.valid.dataset, **whole))
    return torch.lerp(torch.stack(predictions).mean(0), plain, PLAIN_WEIGHT), labels

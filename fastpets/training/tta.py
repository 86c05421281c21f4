"""Test-time augmentation, as in fastai: averages an image's prediction with those of augmented versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastpets.errors import FastpetsError
from fastpets.utils.validation import MAX_TTA, check_range

if TYPE_CHECKING:
    from fastpets.training.learner import Learner

PLAIN_WEIGHT = 0.25  # weight of the prediction without augmentation; the mean of the augmented ones has the other 0.75


def tta(learner: Learner, num_augmented: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (N, C) and labels (N,) of all validation images. Under torchrun, each process computes them all.

    Each image is predicted once as in validation, and `num_augmented` times with the training loader's augmentation.
    Raises FastpetsError if that loader has none.
    """
    check_range("num_augmented", num_augmented, 1, MAX_TTA)
    if learner.train.augment is None:
        raise FastpetsError(
            "test-time augmentation, but the training loader has no augmentation; use augment=True, or leave out "
            "test-time augmentation"
        )
    all_images = {"rank": 0, "world_size": 1}
    augmented = learner.valid.like(
        learner.valid.dataset, augment=learner.train.augment, shuffle=False, drop_last=False, **all_images
    )
    # Each pass is another epoch of the loader, with other random parameters.
    predictions = [learner.get_preds(augmented)[0] for _ in range(num_augmented)]
    plain, labels = learner.get_preds(learner.valid.like(learner.valid.dataset, **all_images))
    return torch.lerp(torch.stack(predictions).mean(0), plain, PLAIN_WEIGHT), labels

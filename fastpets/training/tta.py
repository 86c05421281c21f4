"""Test-time augmentation, as fastai does it: an image's prediction averaged with those of its augmented versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastpets.errors import FastpetsError

if TYPE_CHECKING:
    from fastpets.training.learner import Learner

PLAIN_WEIGHT = 0.25  # of the image as it is; the rest is the mean over the augmented ones


def tta(learner: Learner, num_augmented: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (N, C) and labels (N,) of the validation images, each also seen `num_augmented` times as training
    sees it. Raises FastpetsError if training augments nothing."""
    if learner.train.augment is None:
        raise FastpetsError("test-time augmentation, but training has none to do it with; give --augment, or no --tta")
    alone = {"rank": 0, "world_size": 1}  # all of the images, in each process
    augmented = learner.valid.like(
        learner.valid.dataset, augment=learner.train.augment, shuffle=False, drop_last=False, **alone
    )
    draws = [learner.get_preds(augmented)[0] for _ in range(num_augmented)]  # each pass draws anew
    plain, labels = learner.get_preds(learner.valid.like(learner.valid.dataset, **alone))
    return torch.lerp(torch.stack(draws).mean(0), plain, PLAIN_WEIGHT), labels

"""Test-time augmentation: fastai's average over independently augmented predictions."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fastpets
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.training.learner import Learner
from fastpets.training.tta import tta
from tests.small_resnet import small_resnet


def make_learner(folder: Path, augment: bool = True) -> Learner:
    train, valid = fastpets.loaders(folder, size=32, batch_size=8, augment=augment)
    return Learner(train, valid, small_resnet())


def test_a_quarter_is_the_plain_prediction_and_the_rest_the_mean_of_augmented_ones(
    make_folder: Callable[..., Path],
) -> None:
    learner = make_learner(make_folder(45))  # 9 for validation: a batch of eight, and one image
    before = learner.train.state_dict(), learner.valid.state_dict()
    probabilities, labels = tta(learner, 3)
    plain, expected_labels = learner.get_preds()
    augmented = fastpets.Loader(
        learner.valid.dataset, size=32, batch_size=8, augment=True, shuffle=False, drop_last=False
    )
    predictions = torch.stack([learner.get_preds(augmented)[0] for _ in range(3)])
    assert not torch.equal(predictions[0], predictions[1])
    assert torch.equal(labels, expected_labels)
    torch.testing.assert_close(probabilities, 0.25 * plain + 0.75 * predictions.mean(0))
    assert learner.train.state_dict() == before[0]


def test_a_training_loader_without_augmentation_is_rejected(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(FastpetsError, match="the training loader has no augmentation; use augment=True"):
        tta(make_learner(make_folder(20), augment=False))


def test_no_augmented_version_is_rejected(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^num_augmented: 0, expected a value from 1 to 1000"):
        tta(make_learner(make_folder(20)), 0)

"""Records the batches that a library gives to a model, and compares them with those of a plain loop."""

import math
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import NamedTuple

import torch

from fastpets import Loader

NUM_TRAIN, NUM_VALID = 14, 9  # images, each of a class of its own; neither is a multiple of the batch size
NUM_CLASSES = NUM_TRAIN + NUM_VALID

MakeLoaders = Callable[..., tuple[Loader, Loader]]
Pixels = dict[int, torch.Tensor]  # images (3, H, W) by their labels


class Step(NamedTuple):
    """A batch that went through the model, in training or not: images (B, 3, H, W), labels (B,) or (B, C)."""

    training: bool
    images: torch.Tensor
    labels: torch.Tensor
    loss: float


class BatchRecorder:
    """A criterion, cross entropy, that records every batch of its model."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.steps = model, list[Step]()
        self.weights_before = [weight.detach().clone() for weight in model.parameters()]
        model.register_forward_pre_hook(self._before_forward)

    def _before_forward(self, model: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        self.training, self.images = model.training, inputs[0].clone()

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.steps.append(Step(self.training, self.images, labels.clone(), loss.item()))
        return loss

    def passes(self) -> list[list[Step]]:
        """The steps, split where training changes to validation or back."""
        return [list(steps) for _, steps in groupby(self.steps, key=lambda step: step.training)]

    def check_learning(self) -> None:
        """Checks that all losses are finite and all weights changed."""
        assert all(math.isfinite(step.loss) for step in self.steps)
        after = self.model.parameters()
        assert not any(torch.equal(*pair) for pair in zip(self.weights_before, after, strict=True))


def mean_loss(steps: list[Step]) -> float:
    """The mean loss of all images."""
    return sum(step.loss * len(step.labels) for step in steps) / sum(len(step.labels) for step in steps)


def evaluate(model: torch.nn.Module, criterion: BatchRecorder, valid: Loader) -> None:
    """Validates, as most loops do."""
    model.eval()
    with torch.no_grad():
        for images, labels in valid:
            criterion(model(images), labels)


def check_passes(passes: list[list[Step]], train: Loader, valid: Loader) -> None:
    """Checks that the batches of two epochs are those of a plain loop over `train` and `valid`, which are unused.

    Each epoch is training, then validation, which has the same pixels each time and every image once. The pixels of
    the two training epochs differ.
    """
    assert [steps[0].training for steps in passes] == [True, False, True, False]
    seen = [pixels((step.images, step.labels) for step in steps) for steps in passes]
    for found, loader in zip(seen, (train, valid) * 2, strict=True):
        assert len(found) == len(loader)
        check_same(found, pixels(loader))
    first, validated, second, _ = map(joined, seen)
    assert sorted(validated) == sorted(valid.dataset.labels.tolist())
    assert len(first) == len(second) == len(train) * train.batch_size
    both = first.keys() & second.keys()
    assert len(both) >= 2 * len(first) - NUM_TRAIN
    assert not any(torch.equal(first[label], second[label]) for label in both)


def pixels(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> list[Pixels]:
    """The images by label, for each batch."""
    return [dict(zip(labels.tolist(), images, strict=True)) for images, labels in batches]


def check_same(found: list[Pixels], expected: list[Pixels]) -> None:
    """Checks that batches have the same images in the same order, bit for bit."""
    assert [list(batch) for batch in found] == [list(batch) for batch in expected]
    images = joined(found)
    assert all(torch.equal(images[label], image) for label, image in joined(expected).items())


def joined(batches: list[Pixels]) -> Pixels:
    """The images of all batches by label. No image may occur twice."""
    together = {label: image for batch in batches for label, image in batch.items()}
    assert len(together) == sum(map(len, batches))
    return together

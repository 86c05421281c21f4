"""Fits a linear head to the features of a pretrained network, by logistic regression, which has one solution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fastpets.errors import InvalidArgumentError
from fastpets.loading.batch import Batch
from fastpets.models.classifier import Classifier
from fastpets.training import distributed

if TYPE_CHECKING:
    from fastpets.training.train_step import TrainStep

WEIGHT_DECAY = 1e-3  # of the squared weights, for features of unit mean deviation; bench/README.md compares others
MAX_ITERATIONS = 100


def check_head(model: nn.Module) -> None:
    """Raises InvalidArgumentError unless a model has a linear head."""
    if not (isinstance(model, Classifier) and model.head_name == "linear"):
        raise InvalidArgumentError(
            "schedule: a fitted head, but the model's is not linear; make the model with head='linear'"
        )


@torch.no_grad()
def fit_head(train_step: TrainStep, batches: Iterable[Batch]) -> tuple[torch.Tensor, int]:
    """Fits the head to images as in validation, each of which passes the backbone once.

    Under torchrun each process is given all images, and takes the head of the first. Returns the loss, without the
    decay, and the number of images.
    """
    model = cast(Classifier, train_step.model).eval()
    found = [(train_step.logits(images, _Features(model)), labels) for images, labels in batches]
    features, labels = torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])
    layer = cast(nn.Linear, model.head[0])
    loss = fit_linear(layer, features, labels)
    distributed.broadcast(layer.parameters())
    if train_step.evaluated_model is not model:
        cast(Classifier, train_step.evaluated_model).head.load_state_dict(model.head.state_dict())
    return loss, len(labels)


class _Features(nn.Module):
    """A classifier without its head: images to features (B, F)."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.backbone = model.backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images).flatten(1)


@torch.no_grad()
def fit_linear(
    layer: nn.Linear, features: torch.Tensor, labels: torch.Tensor, weight_decay: float = WEIGHT_DECAY
) -> torch.Tensor:
    """Fits a layer to features (N, F) and labels (N,) by L-BFGS. Returns the mean cross entropy.

    Minimised is the mean cross entropy plus `weight_decay` times the sum of the squared weights, for features that are
    centred and divided by one number, their mean deviation; dividing each by its own is worse.
    """
    centre, scale = features.mean(0), features.std(0).mean()
    features = (features - centre) / scale
    weight = torch.zeros_like(layer.weight, requires_grad=True)
    bias = torch.zeros_like(layer.bias, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        value = cross_entropy(features @ weight.T + bias, labels) + weight_decay * weight.square().sum()
        value.backward()
        return value

    optimizer.step(objective)
    layer.weight.copy_(weight / scale)
    layer.bias.copy_(bias - weight @ centre / scale)
    return cross_entropy(features @ weight.T + bias, labels)

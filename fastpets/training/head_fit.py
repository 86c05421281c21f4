"""Fits a linear head to the features of a pretrained network, by logistic regression, which has one solution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.loading.batch import Batch
from fastpets.models.classifier import Classifier
from fastpets.training import distributed

if TYPE_CHECKING:
    from fastpets.training.train_step import TrainStep

# Of the squared weights, for features whose standard deviations have the mean 1; bench/README.md compares others.
WEIGHT_DECAY = 1e-3
MAX_ITERATIONS = 100


def check_head(model: nn.Module) -> None:
    """Raises InvalidArgumentError unless a model has a linear head."""
    if not (isinstance(model, Classifier) and model.head_name == "linear"):
        raise InvalidArgumentError(
            "schedule: a fitted head, but the model's is not linear; make the model with head='linear'"
        )


@torch.no_grad()
def fit_head(train_step: TrainStep, batches: Iterable[Batch]) -> tuple[torch.Tensor, np.ndarray]:
    """Fits the head to images as in validation, each of which passes the backbone once. A moving average begins anew.

    Under torchrun each process is given all images, and takes the head of the first. Returns the loss, without the
    decay, and the ids of the images. Raises FastpetsError if there are none.
    """
    model = cast(Classifier, train_step.model).eval()
    found = [(train_step.logits(batch.images, _Features(model)), batch.labels, batch.ids) for batch in batches]
    if not found:
        raise FastpetsError("fitted head: none of the training images can be used; `fastpets check` lists them")
    features, labels = (torch.cat([each[i] for each in found]) for i in (0, 1))
    layer = cast(nn.Linear, model.head[0])
    loss = fit_linear(layer, features, labels)
    distributed.broadcast(layer.parameters())
    if train_step.evaluated_model is not model:
        train_step.evaluated_model.load_state_dict(model.state_dict())
    return loss, np.concatenate([ids for _, _, ids in found])


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
    centred and divided by one number, the mean of their standard deviations; dividing each by its own is worse.
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

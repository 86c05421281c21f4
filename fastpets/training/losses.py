"""The training loss: cross entropy, or a function of the user's, which is called once before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fastpets.errors import InvalidArgumentError
from fastpets.models.weights import short_reason
from fastpets.training.options import TrainingOptions

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_loss(options: TrainingOptions, num_classes: int, device: torch.device) -> Loss:
    """The loss of logits (B, C) and labels (B,) int64, or probabilities (B, C) if `options.mix` mixes labels.

    Raises InvalidArgumentError for class weights of another shape, and for a loss of the user's that does not work.
    """
    if options.loss is None:
        weights = _class_weights(options, num_classes)
        return nn.CrossEntropyLoss(weights, label_smoothing=options.label_smoothing).to(device)
    loss: Any = options.loss.to(device) if isinstance(options.loss, nn.Module) else options.loss
    if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
        raise InvalidArgumentError("loss: a module with parameters of its own, which the optimizer does not train")
    num_images = 3 if num_classes == 2 else 2  # another number, so that labels (B,) do not broadcast to logits (B, C)
    logits = torch.zeros(num_images, num_classes, device=device, requires_grad=True)
    labels = torch.zeros(num_images, dtype=torch.int64, device=device)
    _check(loss, logits, labels, "logits (B, C) and labels (B,) int64")
    if isinstance(options.mix, str) and options.mix != "none":
        soft = torch.full_like(logits, 1 / num_classes, requires_grad=False)
        _check(loss, logits, soft, f"logits and probabilities (B, C), which mix={options.mix!r} makes of labels")
    return loss


def _check(loss: Loss, logits: torch.Tensor, labels: torch.Tensor, arguments: str) -> None:
    """Raises InvalidArgumentError unless the loss maps such a batch to a scalar with gradients."""
    try:
        value = loss(logits, labels)
    except Exception as error:  # a function of the user's raises errors of any type
        raise InvalidArgumentError(
            f"loss: {_name(loss)} fails with {arguments}: {type(error).__name__}: {short_reason(error)}"
        ) from error
    if not isinstance(value, torch.Tensor) or value.ndim != 0 or not value.requires_grad:
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise InvalidArgumentError(
            f"loss: {_name(loss)} gives {found} for {arguments}, expected a scalar tensor that depends on the logits"
        )


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _class_weights(options: TrainingOptions, num_classes: int) -> torch.Tensor | None:
    """The class weights (C,) of the options, or None. Raises InvalidArgumentError."""
    weights = options.class_weights
    if weights is False:
        return None
    if not isinstance(weights, torch.Tensor):
        raise InvalidArgumentError(
            f"class_weights: {weights!r}, expected a tensor ({num_classes},); a Learner computes it if it is True"
        )
    if weights.shape != (num_classes,):
        raise InvalidArgumentError(
            f"class_weights: shape {tuple(weights.shape)}, expected ({num_classes},), one weight per class"
        )
    return weights.float()

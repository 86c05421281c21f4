"""The optimizer's parameter groups, and the freezing of layer groups, both as in fastai."""

from collections.abc import Iterable

import torch
from torch import nn

from fastpets.errors import InvalidArgumentError
from fastpets.models.classifier import BATCH_NORMS, INSTANCE_NORMS, NORM_LAYERS, Classifier
from fastpets.utils.validation import FrozenNorms


def frozen_groups(model: Classifier, n: int) -> list[list[nn.Module]]:
    """The layer groups before the `n`-th, which is counted from the end if negative. Raises InvalidArgumentError."""
    groups = model.layer_groups()
    if not -len(groups) <= n < len(groups):
        raise InvalidArgumentError(
            f"freeze_to: {n}, but the model has {len(groups)} layer groups, and one has to train; expected "
            f"{-len(groups)} to {len(groups) - 1}"
        )
    return groups[:n] if n else []


def freeze(model: Classifier, n: int, bn: FrozenNorms) -> None:
    """Freezes the parameters of the layer groups before the `n`-th, and makes all others trainable.

    Norm layers stay trainable unless `bn` is "eval".
    """
    model.requires_grad_(True).zero_grad()
    for group in frozen_groups(model, n):
        for layer in _layers_with_parameters(group):
            if bn == "eval" or not isinstance(layer, NORM_LAYERS):
                for parameter in layer.parameters(recurse=False):
                    parameter.requires_grad_(False)


def train_mode(model: Classifier, n: int, bn: FrozenNorms) -> None:
    """Sets training mode. If `bn` is "eval", norm layers of frozen groups do not update their running statistics."""
    model.train()
    if bn == "eval":
        for group in frozen_groups(model, n):
            for module in group:
                for layer in module.modules():
                    if isinstance(layer, (*BATCH_NORMS, *INSTANCE_NORMS)):
                        layer.eval()


def adamw(model: Classifier, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with fastai's defaults and no weight decay on norm layers and biases.

    Each parameter group has the key `layer_group`, the number of its layer group from 0.
    """
    groups = _parameter_groups(model.layer_groups(), weight_decay)
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-5, fused=True)


def _layers_with_parameters(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules and submodules that have parameters of their own."""
    return [layer for module in modules for layer in module.modules() if list(layer.parameters(recurse=False))]


def _parameter_groups(layer_groups: list[list[nn.Module]], weight_decay: float) -> list[dict]:
    """Parameter groups: for each layer group one with weight decay, then one of norms and biases without, if any."""
    groups: list[dict] = []
    for number, modules in enumerate(layer_groups):
        decaying: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for layer in _layers_with_parameters(modules):
            for name, parameter in layer.named_parameters(recurse=False):
                no_decay = isinstance(layer, NORM_LAYERS) or name.endswith("bias")
                (others if no_decay else decaying).append(parameter)
        for parameters, decay in ((decaying, weight_decay), (others, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "layer_group": number})
    return groups

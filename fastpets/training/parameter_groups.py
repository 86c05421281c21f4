"""The optimizer: fastai's AdamW over a model's layer groups, and which of those are frozen."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from fastpets.errors import FastpetsError
from fastpets.models.classifier import NORM_LAYERS, Classifier
from fastpets.utils.validation import FrozenNorms


def frozen_groups(model: Classifier, n: int) -> list[list[nn.Module]]:
    """The layer groups before the `n`-th, or all but the last -n if it is negative. Raises FastpetsError."""
    groups = model.layer_groups()
    if not -len(groups) <= n < len(groups):
        raise FastpetsError(f"freeze_to({n}): the model has {len(groups)} layer groups, and one has to train")
    return groups[:n] if n else []


def freeze(model: Classifier, n: int, bn: FrozenNorms) -> None:
    """Has the layer groups before the `n`-th not train, their norm layers excepted if `bn` is "train"."""
    model.requires_grad_(True).zero_grad()
    for group in frozen_groups(model, n):
        for layer in _holders(group):
            if bn == "eval" or not isinstance(layer, NORM_LAYERS):
                for parameter in layer.parameters(recurse=False):
                    parameter.requires_grad_(False)


def train_mode(model: Classifier, n: int, bn: FrozenNorms) -> None:
    """Puts the model into training, and the batch norms of frozen groups into evaluation if `bn` is "eval"."""
    model.train()
    if bn == "eval":
        for group in frozen_groups(model, n):
            for module in group:
                for layer in module.modules():
                    if isinstance(layer, BatchNorm):
                        layer.eval()


def adamw(model: Classifier, weight_decay: float) -> torch.optim.AdamW:
    """fastai's Adam: decoupled decay, none of it on norms and biases."""
    groups = _parameter_groups(model.layer_groups(), weight_decay)
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-5, fused=True)


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Takes in a state_dict, whose numbers may have become strings, in the memory layout of the parameters."""
    by_number = {int(number): dict(values) for number, values in state["state"].items()}
    optimizer.load_state_dict({"state": by_number, "param_groups": state["param_groups"]})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            like = parameter if value.shape == parameter.shape else value
            values[name] = torch.empty_like(like, dtype=value.dtype).copy_(value)


def _holders(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that hold parameters of their own."""
    return [layer for module in modules for layer in module.modules() if list(layer.parameters(recurse=False))]


def _parameter_groups(layer_groups: list[list[nn.Module]], weight_decay: float) -> list[dict]:
    """The optimizer's groups: those parameters of each layer group that decay, then its norms and biases, which do not.

    Each names its layer group, counted from 0, by which rates are given out.
    """
    groups: list[dict] = []
    for number, modules in enumerate(layer_groups):
        decaying: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for layer in _holders(modules):
            for name, parameter in layer.named_parameters(recurse=False):
                no_decay = isinstance(layer, NORM_LAYERS) or name.endswith("bias")
                (others if no_decay else decaying).append(parameter)
        for parameters, decay in ((decaying, weight_decay), (others, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "layer_group": number})
    return groups

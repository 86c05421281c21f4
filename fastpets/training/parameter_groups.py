"""The layer groups of a model, the optimizer's parameter groups, and the freezing of layer groups, all as in fastai."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from fastpets.errors import InvalidArgumentError, first_few
from fastpets.models.classifier import BATCH_NORMS, INSTANCE_NORMS, Classifier, is_norm
from fastpets.utils.validation import FrozenNorms

FROZEN_HERE = "_frozen_by_fastpets"  # attribute of a model: the names of the parameters that `freeze` has frozen
Groups = list[list[nn.Parameter]]  # the parameters of each layer group, from input to output
# Maps a model to its layer groups: fastai's term. A group is a module, a parameter, or a list of these.
Splitter = Callable[[Any], Iterable[Any]]


def layer_groups(model: nn.Module, splitter: Splitter | None = None) -> Groups:
    """The layer groups that `splitter` gives, by default those of a Classifier, or one group of all parameters.

    Raises InvalidArgumentError unless each parameter of the model is in one group.
    """
    if splitter is not None:
        split = splitter(model)
    else:
        split = model.layer_groups() if isinstance(model, Classifier) else [model]
    groups = [list(_parameters(group)) for group in split]
    found = Counter(id(parameter) for group in groups for parameter in group)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if wrong := [name for key, name in names.items() if found[key] != 1]:
        raise InvalidArgumentError(
            f"splitter: {len(wrong)} of {len(names)} parameters are in no group or in several: {first_few(wrong)}; "
            "expected each in one"
        )
    if not all(groups) or len(found) > len(names):
        sizes = ", ".join(str(len(group)) for group in groups)
        raise InvalidArgumentError(
            f"splitter: groups of {sizes} parameters, expected groups of one or more, and only the model's own"
        )
    return groups


def _parameters(group: Any) -> Iterator[nn.Parameter]:
    """The different parameters of a module, of a parameter or of a list of these."""
    if isinstance(group, nn.Parameter):
        yield group
    elif isinstance(group, nn.Module):
        yield from group.parameters()
    elif isinstance(group, Iterable) and not isinstance(group, str):
        found = {id(parameter): parameter for item in group for parameter in _parameters(item)}
        yield from found.values()
    else:
        raise InvalidArgumentError(f"splitter: {type(group).__name__}, expected modules, parameters or lists of these")


def first_trained(groups: Groups, n: int) -> int:
    """The number of the `n`-th layer group from 0; `n` counts from the end if negative. Raises InvalidArgumentError."""
    if not -len(groups) <= n < len(groups):
        raise InvalidArgumentError(
            f"freeze_to: {n}, but the model has {len(groups)} layer groups, and one has to train; expected "
            f"{-len(groups)} to {len(groups) - 1}"
        )
    return n % len(groups)


def frozen_by_user(model: nn.Module) -> set[str]:
    """The names of the parameters that are frozen, but not by `freeze`, which another learner may have called."""
    by_us = getattr(model, FROZEN_HERE, ())
    return {name for name, each in model.named_parameters() if not each.requires_grad and name not in by_us}


def freeze(model: nn.Module, groups: Groups, n: int, bn: FrozenNorms, fixed: set[str]) -> None:
    """Freezes the parameters of the layer groups before the `n`-th, and makes all others but the `fixed` trainable.

    Norm layers stay trainable if `bn` is "train"; if it is "fixed", all but those of the last group freeze. Raises
    InvalidArgumentError if all that would train is fixed.
    """
    first, number_of = first_trained(groups, n), _number_of(groups)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if all(names[id(parameter)] in fixed for group in groups[first:] for parameter in group):
        raise InvalidArgumentError(
            f"freeze_to: {n}: the model's parameters to train were frozen when the learner was made; set requires_grad "
            "before"
        )
    frozen = set()
    for layer in model.modules():
        end = _first_with_norms(groups, first, bn) if is_norm(layer) else first
        frozen |= {names[id(each)] for each in layer.parameters(recurse=False) if number_of[id(each)] < end}
    model.zero_grad()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen and name not in fixed)
    setattr(model, FROZEN_HERE, frozen - fixed)


def train_mode(model: nn.Module, groups: Groups, n: int, bn: FrozenNorms) -> None:
    """Sets training mode, in which norm layers that `freeze` freezes do not update their running statistics."""
    model.train()
    if bn != "train":
        end = _first_with_norms(groups, first_trained(groups, n), bn)
        for layer, number in _layers(model, groups):
            if number < end and isinstance(layer, (*BATCH_NORMS, *INSTANCE_NORMS)):
                layer.eval()


def _first_with_norms(groups: Groups, first: int, bn: FrozenNorms) -> int:
    """The first layer group whose norm layers train, if `first` is the first group that trains."""
    return {"train": 0, "eval": first, "fixed": max(first, len(groups) - 1)}[bn]


def adamw(model: nn.Module, groups: Groups, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with fastai's defaults and no weight decay on norm layers and biases.

    For each layer group it has a parameter group with weight decay, then one of norms and biases without, if any. Each
    has the key `layer_group`, the number of its layer group from 0.
    """
    by_group: list[tuple[list[nn.Parameter], list[nn.Parameter]]] = [([], []) for _ in groups]
    number_of = _number_of(groups)
    for layer in model.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if (number := number_of.pop(id(parameter), None)) is not None:  # several layers may share a parameter
                has_decay = not (is_norm(layer) or name.endswith("bias"))
                by_group[number][0 if has_decay else 1].append(parameter)
    parameter_groups = [
        {"params": parameters, "weight_decay": decay, "layer_group": number}
        for number, both in enumerate(by_group)
        for parameters, decay in zip(both, (weight_decay, 0.0), strict=True)
        if parameters
    ]
    return torch.optim.AdamW(parameter_groups, betas=(0.9, 0.99), eps=1e-5, fused=True)


def _layers(model: nn.Module, groups: Groups) -> Iterator[tuple[nn.Module, int]]:
    """Each module with the number of its layer group: that of its own parameters, else that of the layer before it."""
    number_of, number = _number_of(groups), 0
    for layer in model.modules():
        number = next((number_of[id(parameter)] for parameter in layer.parameters(recurse=False)), number)
        yield layer, number


def _number_of(groups: Groups) -> dict[int, int]:
    """The number of the layer group of each parameter, by the parameter's id."""
    return {id(parameter): number for number, group in enumerate(groups) for parameter in group}

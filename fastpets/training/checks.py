"""Checks of what a learner is given, a model and loaders that fit it and each other, and of numbers in training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fastpets.errors import FastpetsError, InvalidArgumentError, counted, describe_bad_files, first_few
from fastpets.models.classifier import Classifier, create_model, has_batch_norm
from fastpets.models.weights import different_classes, short_reason
from fastpets.training import distributed

if TYPE_CHECKING:
    from fastpets.loading.batch import Batch
    from fastpets.loading.loader import Loader


REMEDY = "use a lower lr, clip_norm=1, or amp_dtype='bfloat16' if it was float16"  # for numbers that are not finite

Normalization = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std


def follow_model(loader: Loader, model: nn.Module) -> None:
    """Sets the mean and std of the model's weights on a loader that was made without.

    Only pretrained Classifiers and timm's models have them. With other models the loader stays as it is.
    """
    if loader.has_own_normalization:
        return
    if isinstance(model, Classifier):
        if model.pretrained:
            loader.normalize(model.mean, model.std)
    elif isinstance(config := getattr(model, "pretrained_cfg", None), dict) and {"mean", "std"} <= set(config):
        loader.normalize(config["mean"], config["std"])


def follow(loader: Loader, normalization: Normalization) -> None:
    """Sets a loader's mean and std. Raises FastpetsError if the loader was made with others."""
    check_normalization(loader, normalization)
    if (loader.preprocessing.mean, loader.preprocessing.std) != normalization:
        loader.normalize(*normalization)


def check_normalization(loader: Loader, normalization: Normalization) -> None:
    """Raises FastpetsError if a loader was made with another mean or std."""
    found = (loader.preprocessing.mean, loader.preprocessing.std)
    mean, std = normalization
    if found != normalization and loader.has_own_normalization:
        raise FastpetsError(
            f"the loader normalises by mean {found[0]} and std {found[1]}, but the weights were trained with others; "
            f"make the loaders with mean={mean}, std={std}, or leave both out: loaders follow the model"
        )


def check_module(model: nn.Module, size: tuple[int, int], num_classes: int, device: torch.device) -> None:
    """Raises FastpetsError unless a model on `device` maps two images (2, 3, H, W) to logits (2, `num_classes`)."""
    parameter, name = next(model.parameters(), None), getattr(model, "arch", "") or type(model).__name__
    if parameter is None:
        raise FastpetsError(f"the model, {name}, has no parameters to train")
    images = torch.zeros(2, 3, *size, dtype=parameter.dtype, device=device)
    was_training = model.training
    try:
        with torch.no_grad():
            logits = model.eval()(images)
    except Exception as error:  # a user's module raises errors of any type
        raise FastpetsError(
            f"the model, {name}, fails on images (2, 3, {size[0]}, {size[1]}): {type(error).__name__}: "
            f"{short_reason(error)}"
        ) from error
    finally:
        model.train(was_training)
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise FastpetsError(
            f"the model, {name}, gives {found} for two images, expected logits (2, {num_classes}): "
            f"the loader has {counted(num_classes, 'class')}"
        )


def check_images(loader: Loader) -> None:
    """Raises FastpetsError unless the batches of a loader are normalised images (B, 3, H, W)."""
    if loader.preprocessing.output != "float":
        raise FastpetsError("the loader gives uint8 pixels, expected normalised images; leave out output='uint8'")
    if loader.preprocessing.layout != "NCHW":
        raise FastpetsError(f"layout: {loader.preprocessing.layout!r}, expected 'NCHW' for training")


def check_labels(loader: Loader) -> None:
    """Raises FastpetsError if an image has no label."""
    labels = loader.dataset.labels
    if len(labels) and labels.min() < 0:
        raise FastpetsError("the loader's images have no labels, expected one each; see label_from")


def check_loaders(model: nn.Module, train: Loader, valid: Loader) -> None:
    """Raises FastpetsError if a model cannot train on the batches of `train` or be validated on those of `valid`."""
    for loader in (train, valid):
        check_images(loader)
        if isinstance(model, Classifier) and model.pretrained:
            follow(loader, (model.mean, model.std))
        check_labels(loader)
    if isinstance(model, Classifier) and model.num_classes != len(train.classes):
        raise FastpetsError(
            f"the model has {counted(model.num_classes, 'output')}, the loader "
            f"{counted(len(train.classes), 'class')}; create it with "
            f"num_classes={len(train.classes)}"
        )
    if isinstance(model, Classifier) and model.classes is not None and model.classes != train.classes:
        raise FastpetsError(
            f"the model was made for other classes: {different_classes(model.classes, train.classes)}; make a "
            "new one, or set model.classes = None to train its head on these"
        )
    if train.device != valid.device:
        raise FastpetsError(
            f"device: {train.device} of the training loader, {valid.device} of the validation loader; expected the same"
        )
    if train.preprocessing.normalization != valid.preprocessing.normalization:
        raise FastpetsError(
            f"training images are normalised by mean {train.preprocessing.mean} and std {train.preprocessing.std}, "
            f"validation images by {valid.preprocessing.mean} and {valid.preprocessing.std}; expected the same"
        )
    if distributed.world_size() > 1 and "skip" in (train.on_bad_file, valid.on_bad_file):
        raise InvalidArgumentError(
            f"on_bad_file: 'skip' with {distributed.world_size()} processes, which would wait for each other where one "
            "leaves out a batch; use on_bad_file='replace'"
        )
    if has_batch_norm(model) and min(train.batch_size, len(train.sampler)) == 1:
        raise FastpetsError("training batches of one image, expected two or more: batch norm cannot train on one")


def as_model(model: str | nn.Module, weights: str | Path, classes: Sequence[str], seed: int) -> nn.Module:
    """The model, built by create_model if it is an architecture. Raises FastpetsError."""
    if isinstance(model, str):
        return create_model(model, len(classes), weights, classes=classes, seed=seed)
    if weights != "default":
        raise InvalidArgumentError(
            f"weights: {weights}, but the model is built already; give an arch, or load them first"
        )
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: {model!r}, expected a name such as 'resnet34' or 'timm/NAME', or a module")
    return model


def check_same_classes(saved: tuple[str, ...], own: tuple[str, ...]) -> None:
    """Raises FastpetsError if the classes of a saved state are not a learner's."""
    if saved != own:
        raise FastpetsError(
            f"classes: {different_classes(saved, own)}; resume with the same data set, or load the weights into a new "
            "learner"
        )


def check_sizes(initial: tuple[int, int] | None, final: tuple[int, int]) -> None:
    """Raises InvalidArgumentError if the initial size of images is larger than the final one."""
    if initial is not None and (initial[0] > final[0] or initial[1] > final[1]):
        raise InvalidArgumentError(
            f"initial_size: {initial[0]} x {initial[1]} px, expected at most the loader's {final[0]} x {final[1]}"
        )


def check_weights(model: nn.Module, num_batches: int) -> None:
    """Raises FastpetsError if a parameter is not finite after so many batches."""
    parameters = dict(model.named_parameters())
    are_finite = torch.stack([parameter.isfinite().all() for parameter in parameters.values()]).tolist()  # one wait
    wrong = [name for name, is_finite in zip(parameters, are_finite, strict=True) if not is_finite]
    if wrong:
        batches = counted(num_batches, "batch")
        raise FastpetsError(f"the weights are not finite after {batches}: {first_few(wrong)}; {REMEDY}")


def check_validation(valid_loss: float) -> None:
    """Raises FastpetsError if a validation loss is not finite."""
    if not math.isfinite(valid_loss):
        raise FastpetsError(f"the validation loss is {valid_loss}; {REMEDY}, and look at the validation images")


def can_train_on(model: nn.Module, batch: Batch) -> bool:
    """Whether a batch has enough images for the model's batch norm; warns if not."""
    if len(batch.labels) > 1 or not has_batch_norm(model):
        return True
    warnings.warn("a batch of one image is skipped: batch norm cannot train on it", stacklevel=2)
    return False


def nothing_to_train_on(train: Loader) -> FastpetsError:
    """The error about an epoch without a batch to train on."""
    found = f" ({describe_bad_files(train.bad_files)})" if train.bad_files else ""
    return FastpetsError(f"no training image could be used in a whole epoch{found}; expected at least a batch of two")

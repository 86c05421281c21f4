"""Checks that a learner's loaders fit its model and each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.models.classifier import Classifier, has_batch_norm
from fastpets.training import distributed

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader


def check_loaders(model: Classifier, train: Loader, valid: Loader) -> None:
    """Raises FastpetsError if a model cannot train on the batches of `train` or be validated on those of `valid`."""
    for loader in (train, valid):
        preprocessing, labels = loader.preprocessing, loader.dataset.labels
        if preprocessing.output != "float":
            raise FastpetsError("the loader gives uint8 pixels, expected normalised images; leave out output='uint8'")
        if preprocessing.layout != "NCHW":
            raise FastpetsError(f"layout: {preprocessing.layout!r}, expected 'NCHW' for training")
        if model.pretrained and (preprocessing.mean, preprocessing.std) != (model.mean, model.std):
            raise FastpetsError(
                f"the loader normalises by mean {preprocessing.mean} and std {preprocessing.std}, but the weights were "
                f"trained with others; make the loaders with mean={model.mean}, std={model.std}"
            )
        if len(labels) and labels.min() < 0:
            raise FastpetsError("the loader's images have no labels, expected one each; see label_from")
    if model.num_classes != len(train.classes):
        raise FastpetsError(
            f"the model has {model.num_classes} outputs, the loader {len(train.classes)} classes; create it with "
            f"num_classes={len(train.classes)}"
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

"""Whatever names pictures and their labels, as items: a folder, a table, pairs, or another library's data set."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpets.config import LABEL_PATTERN, LabelFrom
from fastpets.errors import FastpetsError
from fastpets.items import NO_LABEL, Items, from_csv, from_folder, from_shards, numbered, with_classes

# Under which names torchvision's data sets keep their files and labels.
PAIRS = ("samples", "_samples")
FILES_AND_LABELS = (("_images", "_labels"), ("_image_files", "_labels"))


def as_items(source: Any, *, label_from: LabelFrom = "name", label_pattern: str = LABEL_PATTERN) -> Items:
    """The items that a Loader's `source` stands for; item ids are positions in it.

    Items as they are; a folder, labelled as `label_from` says; a CSV; tar shards; a sequence of paths, or of (path,
    label), with labels that are names, or numbers from 0; a torchvision data set of files, or a torch Subset of one.
    Raises FastpetsError for anything else.
    """
    if isinstance(source, Items):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if path.lower().endswith(".csv"):
            return from_csv(path)[0]
        if path.lower().endswith(".tar"):
            return from_shards(path, label_pattern=label_pattern)
        return from_folder(path, label_from=label_from, label_pattern=label_pattern)
    if hasattr(source, "dataset") and hasattr(source, "indices"):  # torch.utils.data.Subset
        return as_items(source.dataset).select(np.asarray(source.indices, np.int64))
    if isinstance(source, Sequence):
        return _from_sequence(source)
    return _from_data_set(source)


def _from_sequence(source: Sequence[Any]) -> Items:
    if all(isinstance(each, (str, os.PathLike)) for each in source):
        return numbered(source, np.full(len(source), NO_LABEL), ())
    if not all(isinstance(each, tuple | list) and len(each) == 2 for each in source):
        wrong = next(each for each in source if not (isinstance(each, tuple | list) and len(each) == 2))
        raise FastpetsError(f"source: {wrong!r} in the list, expected (path, label), or a path in a list of paths")
    paths, labels = [pair[0] for pair in source], [pair[1] for pair in source]
    if all(isinstance(label, str) for label in labels):
        return with_classes(paths, labels)
    return numbered(paths, labels, ())


def _from_data_set(source: Any) -> Items:
    """A torchvision data set's files; its own reading, and its transform, are this package's work."""
    pairs = next((getattr(source, name) for name in PAIRS if hasattr(source, name)), None)
    for name, name_of_labels in FILES_AND_LABELS:
        if pairs is None and hasattr(source, name) and hasattr(source, name_of_labels):
            pairs = list(zip(getattr(source, name), getattr(source, name_of_labels), strict=True))
    kind = type(source).__name__
    if pairs is None:
        raise FastpetsError(
            f"source: {kind}, expected a folder, a CSV, Items, a list of (path, label), or a torchvision data set of "
            "files such as ImageFolder; for others, list their files and labels"
        )
    if getattr(source, "_target_types", ["category"]) != ["category"]:
        raise FastpetsError(f"source: {kind} with target_types {source._target_types}, expected 'category' alone")
    if getattr(source, "transform", None) is not None:
        warnings.warn(f"the transform of this {kind} is not used; a Loader has size, augment and mean", stacklevel=4)
    labels = [label for _, label in pairs]
    if getattr(source, "target_transform", None) is not None:
        labels = list(map(source.target_transform, labels))
    return numbered([path for path, _ in pairs], labels, getattr(source, "classes", ()))

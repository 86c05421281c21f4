"""The split of a data set into training and validation images."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpets.data import storage
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import (
    LABEL_PATTERN,
    TRAIN_NAMES,
    VALID_NAMES,
    as_dataset,
    csv_folder,
    from_csv,
    is_csv,
    is_tar,
    line_of,
)
from fastpets.errors import BadFileError, FastpetsError, InvalidArgumentError, warn
from fastpets.utils import philox
from fastpets.utils.system import resolve_num_workers
from fastpets.utils.validation import LabelFrom, OnBadFile, check_choice

VALID_SHARE = 0.2


def train_valid_datasets(
    source: Any,
    *,
    label_from: LabelFrom = "auto",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    split_seed: int = 42,
    on_bad_file: OnBadFile = "raise",
    max_pixels: int | None = None,
    num_workers: int | None = None,
) -> tuple[ImageDataset, ImageDataset]:
    """The training and the validation images of a source, as `fastpets.loaders` describes them, with their headers.

    The headers are scanned once, for the whole data set, by `num_workers` threads: None is the default of a Loader, 0
    is one thread. With `labels`, a CSV, the source is the folder of its files or None. With `on_bad_file="raise"`, a
    BadFileError names all bad files of both parts, including images of more than `max_pixels`. Raises FastpetsError for
    a class that only validation images have.
    """
    check_choice("label_from", label_from, LabelFrom)
    dataset, parts = _split_dataset(source, labels, label_from, label_pattern, split_seed)
    _check_classes(dataset, parts, split_seed)
    dataset = dataset.scanned(resolve_num_workers(num_workers))
    train, valid = (dataset.select(ids) for ids in parts)
    if on_bad_file == "raise":
        problems: dict[str, str] = {}
        for headers in (train.headers, valid.headers):
            assert headers is not None
            problems |= (headers if max_pixels is None else headers.limited(max_pixels)).problems
        if problems:
            raise BadFileError(problems)
    return train, valid


def _split_dataset(
    source: Any, labels: str | os.PathLike[str] | None, label_from: LabelFrom, label_pattern: str, seed: int
) -> tuple[ImageDataset, tuple[np.ndarray, np.ndarray]]:
    """The whole data set, and the ids of its training and of its validation images."""
    is_path = isinstance(source, str | os.PathLike)
    if labels is not None:
        if source is not None and not is_path:
            found = type(source).__name__
            raise InvalidArgumentError(f"source: {found}, expected None or the folder of the files that labels names")
        csv_file = os.fspath(labels)
        folder = csv_folder(csv_file) if source is None else source
        dataset, names = from_csv(csv_file, folder)
    elif is_csv(source):
        csv_file = os.fspath(source)
        folder = csv_folder(csv_file)
        dataset, names = from_csv(csv_file, folder, label_from=label_from)
    else:
        dataset = as_dataset(source, label_from=label_from, label_pattern=label_pattern)
        folder = source if is_path and not is_tar(source) else None
        names = ()
    if any(names):
        _check_split_column(csv_file, names)
        return dataset, split_by_names(names)
    return dataset, split(dataset, folder=folder, seed=seed)


def _check_split_column(csv_file: str, names: Sequence[str]) -> None:
    """Raises FastpetsError for a value that names no part of a split."""
    known = TRAIN_NAMES + VALID_NAMES
    row = next((row for row, name in enumerate(names) if name.strip().lower() not in known), None)
    if row is not None:
        raise FastpetsError(
            f"{csv_file}, line {line_of(csv_file, row)}: split {names[row]!r}, expected one of {', '.join(known)}"
        )


def _check_classes(dataset: ImageDataset, parts: tuple[np.ndarray, np.ndarray], split_seed: int) -> None:
    """Raises FastpetsError if there are classes without training images."""
    train_labels, valid_labels = (np.unique(dataset.labels[ids]) for ids in parts)
    untrained = np.setdiff1d(valid_labels, train_labels).tolist()
    if untrained:
        shown = ", ".join(dataset.classes[label] for label in untrained[:5]) + ", ..." * (len(untrained) > 5)
        raise FastpetsError(
            f"{len(untrained)} of {len(dataset.classes)} classes have validation images only: {shown}; expected "
            f"training images of each: add some, or choose another split (split_seed={split_seed + 1}, folders named "
            "train and valid, or the column split of a CSV)"
        )


def split(
    dataset: ImageDataset, *, folder: str | os.PathLike[str] | None = None, seed: int = 42
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the training and of the validation images, each in ascending order.

    If there are folders named train or training, and valid, val, validation or test, directly below `folder`, they are
    the split; of several for validation, only the first in this order is used. Otherwise a random fifth, chosen by
    `seed`, validates. If it contains all images of a class, one of them moves to training.
    """
    if folder is not None:
        top_folders = _top_folders(dataset.paths, os.fspath(folder))
        if set(top_folders) & set(TRAIN_NAMES) and set(top_folders) & set(VALID_NAMES):
            if outside := sum(name not in TRAIN_NAMES + VALID_NAMES for name in top_folders):
                warn(
                    f"{folder}: {outside} of {len(dataset)} images are not used, since they are in none of the folders "
                    "for training and validation"
                )
            return split_by_names(top_folders)
    shuffled = philox.permutation(len(dataset), purpose=philox.SPLIT, seed=seed)
    num_valid = int(VALID_SHARE * len(dataset))
    if num_valid == 0:
        raise FastpetsError(
            f"{len(dataset)} images, expected at least 5, of which a fifth validates; add some, or move them into "
            "folders named train and valid"
        )
    train, valid = shuffled[num_valid:], shuffled[:num_valid]
    only_valid = np.flatnonzero(~np.isin(dataset.labels[valid], dataset.labels[train]))
    _, first = np.unique(dataset.labels[valid[only_valid]], return_index=True)
    moved = only_valid[first]
    train, valid = np.append(train, valid[moved]), np.delete(valid, moved)
    return np.sort(train), np.sort(valid)


def split_by_names(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the training and of the validation images, from the name of each image's part, such as "train"."""
    names = [name.strip().lower() for name in names]
    parts = sorted(set(names))
    valid_name = next((name for name in VALID_NAMES if name in parts), None)
    if valid_name is None or not set(parts) & set(TRAIN_NAMES):
        found = ", ".join(parts) or "nothing"
        raise FastpetsError(f"split: found {found}, expected train and one of {', '.join(VALID_NAMES)}")
    is_train = np.fromiter((name in TRAIN_NAMES for name in names), bool, len(names))
    is_valid = np.fromiter((name == valid_name for name in names), bool, len(names))
    return np.flatnonzero(is_train), np.flatnonzero(is_valid)


def _top_folders(paths: Sequence[str], folder: str) -> list[str]:
    """For each path, its first folder below `folder` in lower case; "" if it lies in `folder` itself."""
    prefix = os.path.join(storage.normalized(folder), "")
    found = []
    for path in paths:
        below = path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, prefix)
        top, slash, _ = below.partition("/")
        found.append(top.lower() if slash else "")
    return found

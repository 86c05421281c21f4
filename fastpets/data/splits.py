"""The split of a data set into training and validation images."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpets.data import storage
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import LABEL_PATTERN, TRAIN_NAMES, VALID_NAMES, as_dataset, from_csv
from fastpets.errors import BadFileError, FastpetsError
from fastpets.utils import philox
from fastpets.utils.system import resolve_num_workers
from fastpets.utils.validation import LabelFrom, OnBadFile

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

    The headers are scanned once, for the whole data set, by `num_workers` threads. With `labels`, a CSV, the source is
    the folder of its files or None. With `on_bad_file="raise"`, a BadFileError names all bad files of both parts,
    including images of more than `max_pixels`. Raises FastpetsError for a class that only validation images have.
    """
    names: Sequence[str] = ()
    if labels is not None:
        dataset, names = from_csv(labels, source)
    else:
        dataset = as_dataset(source, label_from=label_from, label_pattern=label_pattern)
    if any(names):
        parts = split_by_names(names)
    else:
        folder = source if isinstance(source, str | os.PathLike) else None
        parts = split(dataset, folder=folder, seed=split_seed)
    train_labels, valid_labels = (np.unique(dataset.labels[ids]) for ids in parts)
    untrained = np.setdiff1d(valid_labels, train_labels).tolist()
    if untrained:
        shown = ", ".join(dataset.classes[label] for label in untrained[:5]) + ", ..." * (len(untrained) > 5)
        raise FastpetsError(
            f"{len(untrained)} of {len(dataset.classes)} classes are in validation alone: {shown}; expected each in "
            f"training too: add images, or choose another split (split_seed={split_seed + 1}, folders named train and "
            "valid, or the column split of a CSV)"
        )
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


def split(
    dataset: ImageDataset, *, folder: str | os.PathLike[str] | None = None, seed: int = 42
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the training and of the validation images, each in ascending order.

    Folders named train and valid, val, validation or test directly below `folder` are the split; if there are several
    for validation, the first of these names counts and the others are not used. Otherwise a random fifth validates,
    by `seed`; a class that only this fifth would have gives one image to training.
    """
    if folder is not None:
        top_folders = _top_folders(dataset.paths, os.fspath(folder))
        if set(top_folders) & set(TRAIN_NAMES) and set(top_folders) & set(VALID_NAMES):
            return split_by_names(top_folders)
    shuffled = philox.permutation(len(dataset), purpose=philox.SPLIT, seed=seed)
    num_valid = int(VALID_SHARE * len(dataset))
    if num_valid == 0:
        raise FastpetsError(
            f"{len(dataset)} images, expected at least 5, of which a fifth validates; add some, or sort them into "
            "folders named train and valid"
        )
    train, valid = shuffled[num_valid:], shuffled[:num_valid]
    only_valid = np.flatnonzero(~np.isin(dataset.labels[valid], dataset.labels[train]))
    _, first = np.unique(dataset.labels[valid[only_valid]], return_index=True)
    moved = only_valid[first]
    train, valid = np.append(train, valid[moved]), np.delete(valid, moved)
    return np.sort(train), np.sort(valid)


def split_by_names(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the training and of the validation images, by the name of each image's part (N,), such as "train"."""
    parts = sorted({name.strip().lower() for name in names})
    valid_name = next((name for name in VALID_NAMES if name in parts), None)
    if valid_name is None or not set(parts) & set(TRAIN_NAMES):
        found = ", ".join(parts) or "nothing"
        raise FastpetsError(f"split: found {found}, expected train and one of {', '.join(VALID_NAMES)}")
    is_train = np.fromiter((name.strip().lower() in TRAIN_NAMES for name in names), bool, len(names))
    is_valid = np.fromiter((name.strip().lower() == valid_name for name in names), bool, len(names))
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

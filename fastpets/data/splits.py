"""The split of items into those to train on and those to validate on."""

import os
from collections.abc import Sequence

import numpy as np

from fastpets.data import storage
from fastpets.data.dataset import ImageDataset
from fastpets.errors import FastpetsError
from fastpets.loading.order import permutation
from fastpets.utils import philox

TRAIN_NAMES = ("train", "training")
VALID_NAMES = ("valid", "val", "validation", "test")
VALID_SHARE = 0.2


def split(
    dataset: ImageDataset, *, folder: str | os.PathLike[str] | None, seed: int = 42
) -> tuple[ImageDataset, ImageDataset]:
    """Training and validation items: by folders named train and valid, val or test, else a random fifth by `seed`.

    Of several folders for validation the first of valid, val, validation, test counts, and the others are not used.
    Of a class that only the fifth would have, one image is moved to training.
    """
    if folder is not None:
        above = os.path.join(storage.normalized(os.fspath(folder)), "")
        tops = [_top_folder(path, above) for path in dataset.paths]
        if set(tops) & set(TRAIN_NAMES) and set(tops) & set(VALID_NAMES):
            return split_by_names(dataset, tops)
    shuffled = permutation(len(dataset), purpose=philox.SPLIT, seed=seed)
    num_valid = int(VALID_SHARE * len(dataset))
    if num_valid == 0:
        raise FastpetsError(
            f"{len(dataset)} images, expected at least 5: a fifth of them validates; add some, or folders "
            "named train and valid"
        )
    train, valid = shuffled[num_valid:], shuffled[:num_valid]
    only_valid = np.flatnonzero(~np.isin(dataset.labels[valid], dataset.labels[train]))
    _, first = np.unique(dataset.labels[valid[only_valid]], return_index=True)
    moved = only_valid[first]
    train, valid = np.append(train, valid[moved]), np.delete(valid, moved)
    return dataset.select(np.sort(train)), dataset.select(np.sort(valid))


def split_by_names(dataset: ImageDataset, names: Sequence[str]) -> tuple[ImageDataset, ImageDataset]:
    """Training and validation items by the name of each one's part (a folder's, or a CSV's split column)."""
    found = sorted({name.strip().lower() for name in names})
    valid_name = next((name for name in VALID_NAMES if name in found), None)
    is_train = np.fromiter((name.strip().lower() in TRAIN_NAMES for name in names), bool)
    if valid_name is None or not is_train.any():
        shown = ", ".join(found) or "nothing"
        raise FastpetsError(f"split: found {shown}, expected train and one of {', '.join(VALID_NAMES)}")
    is_valid = np.fromiter((name.strip().lower() == valid_name for name in names), bool)
    return dataset.select(np.flatnonzero(is_train)), dataset.select(np.flatnonzero(is_valid))


def _top_folder(path: str, folder: str) -> str:
    """The first folder below `folder` on the way to a path, in small letters; "" for what lies in it directly."""
    inside = path[len(folder) :] if path.startswith(folder) else os.path.relpath(path, folder)
    top, slash, _ = inside.partition("/")
    return top.lower() if slash else ""

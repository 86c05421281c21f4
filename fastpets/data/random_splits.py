"""Which images of a data set validate, where neither folders nor a table say so: at random, by class, or as in fastai.

Each function returns the ids of the training and of the validation images, both ascending.
"""

import mimetypes
import os
from collections.abc import Sequence

import numpy as np

from fastpets.errors import FastpetsError, counted
from fastpets.utils import philox
from fastpets.utils.validation import VALID_SHARE

FEW = 5  # validation images of a class, on average; below that, "auto" divides each class
Ids = tuple[np.ndarray, np.ndarray]


def random_split(labels: np.ndarray, seed: int, share: float = VALID_SHARE) -> Ids:
    """A random `share` validates, given the labels (N,) of all images. `seed` chooses it.

    If it contains all images of a class, one of them moves to training.
    """
    shuffled = philox.permutation(len(labels), purpose=philox.SPLIT, seed=seed)
    num_valid = _num_valid(len(labels), share)
    train, valid = shuffled[num_valid:], shuffled[:num_valid]
    only_valid = np.flatnonzero(~np.isin(labels[valid], labels[train]))
    _, first = np.unique(labels[valid[only_valid]], return_index=True)
    moved = only_valid[first]
    train, valid = np.append(train, valid[moved]), np.delete(valid, moved)
    return np.sort(train), np.sort(valid)


def stratified_split(labels: np.ndarray, seed: int, share: float = VALID_SHARE) -> Ids:
    """A random `share` of each class validates: at least one image, and not all. An only image trains."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    num_valid = _valid_counts(counts, share, _num_valid(len(labels), share))
    order, starts = _by_class(codes, seed), np.cumsum(counts) - counts
    is_valid = np.zeros(len(labels), bool)
    is_valid[order] = np.arange(len(labels)) - np.repeat(starts, counts) < np.repeat(num_valid, counts)
    return _ids(is_valid)


def fold_split(labels: np.ndarray, seed: int, fold: int, num_folds: int) -> Ids:
    """Fold number `fold` of `num_folds` validates. `seed` chooses the folds.

    The sizes of the folds, and their numbers of images of each class, differ by one at most. An only image of a class
    trains in all of them; every other image validates in one.
    """
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = _by_class(codes, seed)
    order = order[counts[codes[order]] > 1]
    if len(order) < num_folds:
        raise FastpetsError(
            f"{counted(len(order), 'image')} of classes with several, expected at least {num_folds} for as many folds; "
            "add some"
        )
    is_valid = np.zeros(len(labels), bool)
    is_valid[order[fold::num_folds]] = True
    return _ids(is_valid)


def has_small_class(labels: np.ndarray, share: float) -> bool:
    """Whether fewer than FEW images of a class would validate on average."""
    return len(labels) > 0 and float(np.unique(labels, return_counts=True)[1].min()) * share < FEW


def fastai_split(paths: Sequence[str], folder: str | None, seed: int, share: float = VALID_SHARE) -> Ids:
    """The images that fastai's RandomSplitter(share, seed) chooses.

    It numbers the images in the order of `paths`, or with a `folder` in that of `get_image_files(folder)`, which is the
    one in which the file system lists them: a copy of the folder may have another one. Images that fastai does not
    list, by their suffix, train.
    """
    import torch

    files = list(paths) if folder is None else _fastai_files(folder)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(files), generator=generator)[: _num_valid(len(files), share)].tolist()
    if folder is None:
        is_valid = np.zeros(len(files), bool)
        is_valid[chosen] = True
        return _ids(is_valid)
    valid = {files[i] for i in chosen}
    return _ids(np.fromiter((path in valid for path in paths), bool, len(paths)))


def _fastai_files(folder: str) -> list[str]:
    """The files of fastai's `get_image_files(folder)`, in its order."""
    suffixes = {suffix for suffix, kind in mimetypes.types_map.items() if kind.startswith("image/")}
    found = []
    for parent, folders, names in os.walk(os.path.normpath(folder), followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in names
            if not name.startswith(".") and f".{name.rpartition('.')[2].lower()}" in suffixes
        ]
    return found


def _num_valid(num_images: int, share: float) -> int:
    """The number of validation images, rounded down. Raises FastpetsError if it is 0."""
    if num_valid := int(share * num_images):
        return num_valid
    shown = "a fifth" if share == VALID_SHARE else f"a share of {share:g}"
    raise FastpetsError(
        f"{counted(num_images, 'image')}, expected at least {int(np.ceil(1 / share))}, of which {shown} validates; "
        "add some, or move them into folders named train and valid"
    )


def _valid_counts(counts: np.ndarray, share: float, total: int) -> np.ndarray:
    """The number of validation images of each class, given that of all its images, (C,): about `total` together."""
    highest = np.maximum(counts - 1, 0)
    num_valid = np.minimum(np.maximum((share * counts).astype(np.int64), 1), highest)
    rest = np.where(num_valid < highest, share * counts - num_valid, -1)  # the largest ones are rounded up
    largest = np.argsort(-rest, kind="stable")[: max(0, total - int(num_valid.sum()))]
    num_valid[largest[rest[largest] > 0]] += 1
    if num_valid.sum() == 0:
        raise FastpetsError("each class has one image, expected several, of which some validate; add some")
    return num_valid


def _by_class(codes: np.ndarray, seed: int) -> np.ndarray:
    """The ids sorted by class, and shuffled within each."""
    shuffled = philox.permutation(len(codes), purpose=philox.SPLIT, seed=seed)
    return shuffled[np.argsort(codes[shuffled], kind="stable")]


def _ids(is_valid: np.ndarray) -> Ids:
    return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)

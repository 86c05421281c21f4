"""ImageDataset: the images of a data set and their labels, from a folder, a table or tar shards."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastpets.data import storage
from fastpets.data.path_table import PathTable
from fastpets.errors import FastpetsError

NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images in a fixed order; the position of one is its item id.

    `labels` (N,) int64 index into `classes`, the sorted names; -1 is an item without a label. `left_out` names the
    files of the folder that are no images by their suffix, and `root` is the folder or table that they came from.
    """

    paths: PathTable
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    root: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.paths, PathTable):
            object.__setattr__(self, "paths", PathTable(self.paths))  # of any strings
        if len(self.paths) != len(self.labels):
            raise FastpetsError(f"items: {len(self.paths)} paths and {len(self.labels)} labels, expected as many")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, ids: np.ndarray) -> "ImageDataset":
        """The items `ids` alone, in that order, with the classes of the whole."""
        return replace(self, paths=self.paths.select(ids), labels=self.labels[ids])


def with_classes(
    paths: Iterable[str | os.PathLike[str]], names: Iterable[str], root: str = "", left_out: Iterable[str] = ()
) -> ImageDataset:
    """ImageDataset whose classes are the sorted names of their labels; numbers, if all are, in the order of numbers."""
    found: dict[str, int] = {}
    codes = np.fromiter((found.setdefault(name, len(found)) for name in names), np.int64)
    classes = sorted(found, key=int) if all(map(is_number, found)) else sorted(found)
    label_from_code = np.zeros(len(found), np.int64)
    label_from_code[[found[name] for name in classes]] = np.arange(len(found))
    return numbered(paths, label_from_code[codes], classes, root, left_out)


def numbered(
    paths: Iterable[str | os.PathLike[str]],
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    root: str = "",
    left_out: Iterable[str] = (),
) -> ImageDataset:
    """ImageDataset whose labels are numbers: from 0 on for the classes, whose names are by default the numbers, or -1."""
    found = np.asarray(labels)
    if len(found) and found.dtype.kind not in "iu":
        wrong = next(label for label in labels if not isinstance(label, int | np.integer))
        raise FastpetsError(f"label {wrong!r}, expected a name, or a whole number from 0, for all images alike")
    most = int(found.max(initial=NO_LABEL))
    names = tuple(map(str, classes)) or tuple(map(str, range(most + 1)))
    if int(found.min(initial=0)) < NO_LABEL or most >= len(names):
        wrong = most if most >= len(names) else int(found.min())
        raise FastpetsError(f"label {wrong}, expected 0 to {len(names) - 1}, or -1 for an image without a label")
    packed = paths if isinstance(paths, PathTable) else PathTable(paths)
    root = root or (os.path.dirname(packed[0]) if packed else "")
    root = root if storage.is_remote(root) else os.path.abspath(root)
    return ImageDataset(packed, found.astype(np.int64), names, tuple(left_out), root)


def is_number(name: str) -> bool:
    return name.strip().lstrip("-").isdecimal()

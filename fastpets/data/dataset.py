"""ImageDataset: the paths, labels and classes of a data set."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xxhash

from fastpets.data import storage
from fastpets.data.headers import ImageHeaders, scan_headers
from fastpets.data.path_table import PathTable
from fastpets.errors import FastpetsError, InvalidArgumentError

NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images in a fixed order; the index of an image is its item id.

    Args:
        paths: of the N images; any sequence of strings.
        labels: (N,) int64 indices into `classes`; -1 for an image without a label.
        classes: the names of the classes, sorted.
        left_out: paths of the files in the folder or in the shards whose suffix is not that of an image.
        root: the folder, table or shards that the images come from.
        label_from: how the images were labelled: by "name", "folder", "table", "shard" (KEY.cls files), "none", or
            "given" with the images.
        headers: what the files' headers say, once `scanned` has read them.
    """

    paths: PathTable
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    root: str = ""
    label_from: str = "given"
    headers: ImageHeaders | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.paths, PathTable):
            object.__setattr__(self, "paths", PathTable(self.paths))
        if len(self.paths) != len(self.labels):
            raise InvalidArgumentError(
                f"labels: {len(self.labels)} for {len(self.paths)} paths, expected one label for each path"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, ids: np.ndarray) -> "ImageDataset":
        """The images `ids` in that order, with their headers and with all classes."""
        paths = self.paths.select(ids)
        headers = None if self.headers is None else self.headers.select(ids, paths)
        return replace(self, paths=paths, labels=self.labels[ids], headers=headers)

    def scanned(self, num_workers: int) -> "ImageDataset":
        """This data set with `headers`, which are read by `num_workers` threads unless they are there already."""
        if self.headers is not None:
            return self
        return replace(self, headers=scan_headers(self.paths, self.root, num_workers))

    def fingerprint(self) -> str:
        """32 hexadecimal digits that depend on the labels and on the paths relative to the folder that holds them.

        A data set that was moved keeps its fingerprint; the contents of the files do not count.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = xxhash.xxh3_128(self.paths.fingerprint().encode())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def with_class_names(
    paths: Iterable[str | os.PathLike[str]],
    names: Iterable[str],
    *,
    root: str = "",
    left_out: Iterable[str] = (),
    label_from: str = "given",
) -> ImageDataset:
    """An ImageDataset from the class name of each image.

    The classes are the sorted names; if all of them are numbers, they are sorted as numbers.
    """
    paths = paths if isinstance(paths, PathTable) else PathTable(paths)
    code_of: dict[str, int] = {}
    codes = np.fromiter((code_of.setdefault(name, len(code_of)) for name in names), np.int64)
    return with_class_codes(paths, codes, list(code_of), root=root, left_out=left_out, label_from=label_from)


def with_class_codes(
    paths: Iterable[str | os.PathLike[str]],
    codes: np.ndarray,
    names: Sequence[str],
    *,
    root: str = "",
    left_out: Iterable[str] = (),
    label_from: str = "given",
) -> ImageDataset:
    """An ImageDataset from an index (N,) of each image into the distinct `names`, which are then sorted."""
    all_numbers = all(map(is_number, names))
    order = sorted(range(len(names)), key=(lambda code: int(names[code])) if all_numbers else names.__getitem__)
    label_from_code = np.empty(len(names), np.int64)
    label_from_code[order] = np.arange(len(names))
    return with_labels(
        paths,
        label_from_code[codes],
        [names[code] for code in order],
        root=root,
        left_out=left_out,
        label_from=label_from,
    )


def with_labels(
    paths: Iterable[str | os.PathLike[str]],
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str] = (),
    *,
    root: str = "",
    left_out: Iterable[str] = (),
    label_from: str = "given",
) -> ImageDataset:
    """An ImageDataset from numeric labels: indices into `classes`, or -1 for no label.

    By default the classes are named "0", "1" and so on.
    """
    array = np.asarray(labels)
    if len(array) and array.dtype.kind not in "iu":
        wrong = next(label for label in labels if not isinstance(label, int | np.integer))
        raise FastpetsError(f"label {wrong!r}, expected a name, or a whole number from 0, for all images alike")
    highest = int(array.max(initial=NO_LABEL))
    names = tuple(map(str, classes)) or tuple(map(str, range(highest + 1)))
    if int(array.min(initial=0)) < NO_LABEL or highest >= len(names):
        wrong = highest if highest >= len(names) else int(array.min())
        raise FastpetsError(f"label {wrong}, expected 0 to {len(names) - 1}, or -1 for an image without a label")
    table = paths if isinstance(paths, PathTable) else PathTable(paths)
    root = root or (os.path.dirname(table[0]) if table else "")
    root = root if storage.is_remote(root) else os.path.abspath(root)
    return ImageDataset(table, array.astype(np.int64), names, tuple(left_out), root, label_from)


def without_labels(
    paths: Iterable[str | os.PathLike[str]], *, root: str = "", left_out: Iterable[str] = ()
) -> ImageDataset:
    """An ImageDataset whose labels are all -1."""
    table = PathTable(paths)
    return with_labels(table, np.full(len(table), NO_LABEL), root=root, left_out=left_out, label_from="none")


def is_number(name: str) -> bool:
    """Whether a class name is a whole number."""
    return name.strip().lstrip("-").isdecimal()

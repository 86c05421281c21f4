"""ImageDataset: the paths, labels and classes of a data set."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xxhash

from fastpets.data import storage
from fastpets.data.headers import ImageHeaders, scan_headers
from fastpets.data.path_table import as_path_table
from fastpets.errors import FastpetsError, InvalidArgumentError, counted, first_few
from fastpets.utils import notebook

NO_LABEL = -1
MAX_SHOWN_CLASSES = 40  # in a notebook
INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")  # Unicode's categories of control and format characters, and of spaces
# The part of a split that a folder or a value in a table stands for, by its name in lower case.
PART_OF = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """Images in a fixed order; an image's index is its item id.

    Args:
        paths: of the N images; any sequence of strings, which is stored as a PathTable.
        labels: (N,) indices into `classes`, stored as int64; -1 for an image without a label.
        classes: the names of the classes, in the order of their labels.
        ignored_files: paths of the files in the folder or in the shards that have no image suffix.
        root: the folder, CSV or shards that the images come from. It names the header cache. Default: the folder of the
            first image.
        label_from: where the labels come from: "name", "folder", "table" (a CSV), "shard" (KEY.cls or KEY.json files),
            "none", or "given" with the images.
        headers: the images' headers, once `scanned` has read them.
        contents: what has to stay in memory for the paths to be readable, see `hf_datasets.Rows`; None for files.

    Raises InvalidArgumentError for labels that do not fit the paths and the classes, and for classes of the same name.
    """

    paths: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    ignored_files: tuple[str, ...] = ()
    root: str = ""
    label_from: str = "given"
    headers: ImageHeaders | None = None
    contents: Any = None

    def __post_init__(self) -> None:
        paths, labels, classes = as_path_table(self.paths), as_labels(self.labels), tuple(self.classes)
        if len(paths) != len(labels):
            raise InvalidArgumentError(f"labels: {len(labels)} for {len(paths)} paths, expected one for each path")
        if (highest := labels.max(initial=NO_LABEL)) >= len(classes):
            num_classes = counted(len(classes), "class")
            raise InvalidArgumentError(f"labels: {highest} with {num_classes}, expected less than that number")
        if repeated := [name for name, count in Counter(classes).items() if count > 1]:
            shown = first_few([repr(name) for name in repeated])
            raise InvalidArgumentError(f"classes: {shown} more than once, expected each name once; rename the others")
        root = storage.absolute(self.root or ("".join(paths[0].rpartition("/")[:2]) if paths else ""))
        fields = {"paths": paths, "labels": labels, "classes": classes, "root": root}
        for name, value in {**fields, "ignored_files": tuple(self.ignored_files)}.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"ImageDataset({counted(len(self), 'image')} of {counted(len(self.classes), 'class')} in {self.root})"

    def _repr_html_(self) -> str:
        rows = [
            {"class": name, "images": count}
            for name, count in zip(self.classes, count_labels(self.labels, len(self.classes)), strict=True)
        ]
        title = f"{counted(len(self), 'image')} of {counted(len(self.classes), 'class')} in {self.root}"
        if len(rows) > MAX_SHOWN_CLASSES:
            rows = [*rows[:MAX_SHOWN_CLASSES], {"class": f"and {len(rows) - MAX_SHOWN_CLASSES} more", "images": ""}]
        return notebook.heading(title) + (notebook.table(rows) if rows else "")

    def select(self, ids: np.ndarray) -> "ImageDataset":
        """The images `ids` in that order, with their headers and with all classes."""
        paths = as_path_table(self.paths).select(ids)
        headers = None if self.headers is None else self.headers.select(ids, paths)
        return replace(self, paths=paths, labels=self.labels[ids], headers=headers)

    def with_classes(self, classes: Sequence[str]) -> "ImageDataset":
        """The same images with `classes`, and labels of the same names; an image without a label stays without one.

        Raises FastpetsError if images are of classes that are not in `classes`, and names these. A name without images
        makes no difference.
        """
        if tuple(classes) == self.classes:
            return self
        label_of = {name: label for label, name in enumerate(classes)}
        labels = np.array([*(label_of.get(name, NO_LABEL) for name in self.classes), NO_LABEL])[self.labels]
        if (is_other := (labels == NO_LABEL) & (self.labels != NO_LABEL)).any():
            first, names = int(is_other.argmax()), [repr(name) for name in self.classes]
            others = [names[label] for label in np.unique(self.labels[is_other]).tolist()]
            raise FastpetsError(
                f"{self.paths[first]} has class {names[self.labels[first]]}, which has no training images: "
                f"{is_other.sum()} of {len(self)} images are of {first_few(others)}; expected some of the "
                f"{len(label_of)} trained classes: {first_few([repr(name) for name in label_of])}"
            )
        return replace(self, labels=labels, classes=tuple(classes))

    def scanned(self, num_workers: int) -> "ImageDataset":
        """This data set with `headers`; reads them with `num_workers` threads if they are missing."""
        if self.headers is not None:
            return self
        return replace(self, headers=scan_headers(self.paths, self.root, num_workers))

    def usable(self, max_pixels: int) -> tuple["ImageDataset", dict[str, str]]:
        """The images whose headers are good and that have at most `max_pixels`; the others' problems by path.

        The headers must have been read.
        """
        assert self.headers is not None
        headers = self.headers.limited(max_pixels)
        return self.select(np.flatnonzero(headers.usable)), dict(headers.problems)

    @cached_property
    def fingerprint(self) -> str:
        """A 128-bit hash, in hexadecimal, of the labels and of the paths relative to the folder that holds them.

        It does not depend on where that folder is, nor on the contents of the files.
        """
        digest = xxhash.xxh3_128(as_path_table(self.paths).fingerprint().encode())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def count_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The number of images of each class (C,) int64, given the labels (N,); those without one are left out."""
    return np.bincount(labels[labels != NO_LABEL], minlength=num_classes)


def as_labels(labels: Any) -> np.ndarray:
    """Converts numeric labels to (N,) int64. Raises InvalidArgumentError unless they are whole numbers from -1."""
    try:
        array = np.asarray(labels)
    except ValueError as error:  # sequences of different lengths
        raise InvalidArgumentError(f"labels: {error}, expected one whole number for each image") from None
    if array.ndim != 1:
        raise InvalidArgumentError(f"labels: an array of shape {array.shape}, expected one label for each image")
    if len(array) == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "biu" or int(array.max()) > np.iinfo(np.int64).max:
        wrong = [label for label in labels if not isinstance(label, int | np.integer | np.bool_)] or [max(labels)]
        raise InvalidArgumentError(f"labels: {wrong[0]!r}, expected whole numbers from 0, or names, for all images")
    if (lowest := array.min()) < NO_LABEL:
        raise InvalidArgumentError(f"labels: {lowest}, expected numbers from 0, or -1 for an image without a label")
    return array.astype(np.int64, copy=False)


def labels_from_names(names: Iterable[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and classes from the class name of each image: see `labels_from_codes`."""
    code_of: dict[str, int] = {}
    codes = np.fromiter((code_of.setdefault(name, len(code_of)) for name in names), np.int64)
    return labels_from_codes(codes, list(code_of))


def labels_from_codes(codes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and classes from an index (N,) of each image into the distinct `names`.

    The classes are the sorted names. If all are whole numbers, they are sorted as numbers.
    """
    key = (lambda name: (int(name), name)) if all(map(is_number, names)) else str
    order = sorted(range(len(names)), key=lambda code: key(names[code]))
    label_by_code = np.empty(len(names), np.int64)
    label_by_code[order] = np.arange(len(names))
    return label_by_code[codes], tuple(names[code] for code in order)


def is_number(name: str) -> bool:
    """Whether a class name is a whole number, of a length that `int` accepts."""
    return re.fullmatch(r" *-?\d{1,1000} *", name) is not None  # \s has separators that `int` refuses, such as \x1c


def similar_names(names: Iterable[str]) -> str | None:
    """A warning about names that are equal up to case, spaces, Unicode form and leading zeros, if there are any."""
    groups: dict[str, list[str]] = {}
    for name in names:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        visible = "".join(char for char in folded if unicodedata.category(char) not in INVISIBLE)
        groups.setdefault(str(int(visible)) if is_number(visible) else visible, []).append(name)
    shown = []
    for group in groups.values():
        look_equal = len({unicodedata.normalize("NFC", name) for name in group}) < len(group)
        if len(group) > 1:
            shown.append(" and ".join(map(ascii if look_equal else repr, group)))
    if not shown:
        return None
    differ = "classes that differ only in case, spaces or Unicode form"
    return f"{differ}: {first_few(shown)}; merge them if they mean the same"

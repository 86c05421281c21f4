"""Labels of images: in the names of their files or folders, as numbers, or none."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastpets.data import storage
from fastpets.data.dataset import NO_LABEL, PART_OF, ImageDataset, as_labels
from fastpets.data.path_table import as_path_table
from fastpets.errors import FastpetsError, InvalidArgumentError

LABEL_PATTERN = r"(.+)_\d+\.\w+$"  # fastai's for Oxford-IIIT Pet, with any suffix
ANOTHER_PATTERN = "pass another label_pattern"


def unlabelled(
    paths: Sequence[str | os.PathLike[str]], ignored_files: Sequence[str] = (), root: str = ""
) -> ImageDataset:
    """An ImageDataset whose labels are all -1."""
    return ImageDataset(
        as_path_table(paths), np.full(len(paths), NO_LABEL), (), tuple(ignored_files), root, label_from="none"
    )


def with_numbers(
    paths: Sequence[str | os.PathLike[str]], labels: Sequence[int], classes: Sequence[Any] = ()
) -> ImageDataset:
    """An ImageDataset from numeric labels; without `classes` these are named "0", "1" and so on.

    Of classes of the same name, such as the two cranes of ImageNet, the later ones are numbered: "crane (2)".
    """
    numbers = as_labels(labels)
    names = _distinct(list(map(str, classes))) or tuple(map(str, range(int(numbers.max(initial=NO_LABEL)) + 1)))
    return ImageDataset(as_path_table(paths), numbers, names)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, of which those that occurred before have a number at their end."""
    distinct, taken = list[str](), set[str]()
    for name in names:
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        unused = name if name not in taken else next(other for other in numbered if other not in {*taken, *names})
        distinct.append(unused)
        taken.add(unused)
    return tuple(distinct)


def matches(paths: Sequence[str], pattern: str) -> Iterator[str | None]:
    """The first group of the pattern in each file name, or None."""
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise InvalidArgumentError(f"label_pattern: {pattern!r}, expected a regular expression ({error})") from None
    if regex.groups < 1:
        raise InvalidArgumentError(f"label_pattern: {pattern!r} has no group, expected one in parentheses, the label")
    for path in paths:
        match = regex.search(storage.name_of(path))
        yield None if match is None else match[1]


def labels_in_names(paths: Sequence[str], pattern: str, hint: str) -> Iterator[str]:
    """The label in each file name. Raises FastpetsError, with `hint` as what to do, for a name without a label."""
    for path, name in zip(paths, matches(paths, pattern), strict=True):
        if name is None:
            count = sum(match is None for match in matches(paths, pattern))
            raise FastpetsError(
                f"{path}: no label in the file name by label_pattern={pattern!r} ({count} of {len(paths)} images have "
                f"none); {hint}"
            )
        yield name


def class_folders(paths: Sequence[str], folder: str) -> list[str]:
    """The name of each path's folder; "" if that is `folder` itself, or a part of the split such as train."""
    prefix = os.path.join(storage.normalized(folder), "")
    class_by_parent: dict[str, str] = {}  # computed once for each folder
    found = []
    for path in paths:
        parent = path.rpartition("/")[0]
        if parent not in class_by_parent:
            parts = f"{parent}/".removeprefix(prefix).split("/")[:-1]
            is_split = parts and parts[0].lower() in PART_OF
            class_by_parent[parent] = "".join(parts[1:][-1:] if is_split else parts[-1:])
        found.append(class_by_parent[parent])
    return found

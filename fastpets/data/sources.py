"""Whatever names images and their labels, as items: a folder, a table, pairs, or another library's data set."""

import csv
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastpets.data import storage
from fastpets.data.dataset import NO_LABEL, ImageDataset, is_number, numbered, with_classes
from fastpets.data.path_table import PathTable
from fastpets.errors import FastpetsError
from fastpets.utils.validation import LabelFrom

LABEL_PATTERN = r"(.+)_\d+\.\w+$"  # the chapter's, for any image suffix
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k")
) | {".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
# Under which names torchvision's data sets keep their files and labels.
PAIRS = ("samples", "_samples")
FILES_AND_LABELS = (("_images", "_labels"), ("_image_files", "_labels"))


def as_dataset(source: Any, *, label_from: LabelFrom = "name", label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """The items that a Loader's `source` stands for; item ids are positions in it.

    ImageDataset as they are; a folder, labelled as `label_from` says; a CSV; tar shards; a sequence of paths, or of (path,
    label), with labels that are names, or numbers from 0; a torchvision data set of files, or a torch Subset of one.
    Raises FastpetsError for anything else.
    """
    if isinstance(source, ImageDataset):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if path.lower().endswith(".csv"):
            return from_csv(path)[0]
        if path.lower().endswith(".tar"):
            return from_shards(path, label_pattern=label_pattern)
        return from_folder(path, label_from=label_from, label_pattern=label_pattern)
    if hasattr(source, "dataset") and hasattr(source, "indices"):  # torch.utils.data.Subset
        return as_dataset(source.dataset).select(np.asarray(source.indices, np.int64))
    if isinstance(source, Sequence):
        return _from_sequence(source)
    return _from_data_set(source)


def _from_sequence(source: Sequence[Any]) -> ImageDataset:
    if all(isinstance(each, (str, os.PathLike)) for each in source):
        return numbered(source, np.full(len(source), NO_LABEL), ())
    if not all(isinstance(each, tuple | list) and len(each) == 2 for each in source):
        wrong = next(each for each in source if not (isinstance(each, tuple | list) and len(each) == 2))
        raise FastpetsError(f"source: {wrong!r} in the list, expected (path, label), or a path in a list of paths")
    paths, labels = [pair[0] for pair in source], [pair[1] for pair in source]
    if all(isinstance(label, str) for label in labels):
        return with_classes(paths, labels)
    return numbered(paths, labels, ())


def _from_data_set(source: Any) -> ImageDataset:
    """A torchvision data set's files; its own reading, and its transform, are this package's work."""
    pairs = next((getattr(source, name) for name in PAIRS if hasattr(source, name)), None)
    for name, name_of_labels in FILES_AND_LABELS:
        if pairs is None and hasattr(source, name) and hasattr(source, name_of_labels):
            pairs = list(zip(getattr(source, name), getattr(source, name_of_labels), strict=True))
    kind = type(source).__name__
    if pairs is None:
        raise FastpetsError(
            f"source: {kind}, expected a folder, a CSV, ImageDataset, a list of (path, label), or a torchvision data set of "
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


def from_folder(
    folder: str | os.PathLike[str], *, label_from: LabelFrom = "name", label_pattern: str = LABEL_PATTERN
) -> ImageDataset:
    """The images below `folder`, sorted by path, labelled by the pattern on the name, by the parent folder, or not.

    Hidden files and folders are passed over. Raises FastpetsError if there is no image, or one without a label.
    """
    folder = os.fspath(folder)
    paths, others = _images(storage.find(folder))
    if not paths:
        raise FastpetsError(f"{folder}: {len(others)} files but no image in it, expected .jpg, .png and the like")
    if label_from == "none":
        return numbered(paths, np.full(len(paths), NO_LABEL), (), folder, others)
    if label_from == "name":
        return with_classes(paths, _names_by_pattern(paths, label_pattern), folder, others)
    top = storage.normalized(folder)
    flat = [path for path in paths if os.path.dirname(path) == top]
    if flat:
        raise FastpetsError(
            f"{flat[0]}: in no folder of its class ({len(flat)} of {len(paths)} images are not); "
            "move it into one, or take labels from the names (--label-from name)"
        )
    return with_classes(paths, (os.path.basename(os.path.dirname(path)) for path in paths), folder, others)


def from_shards(shards: str, *, label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """The images in tar files as WebDataset writes them; `shards` is a path with * or {000..099} where wanted.

    The label is what the file KEY.cls beside an image KEY.jpg says, or else what the pattern finds in its name.
    Raises FastpetsError if there is no image, or one without a label.
    """
    paths: list[str] = []
    others: list[str] = []
    labels: dict[str, str] = {}
    for shard in storage.expand(shards):
        images, rest = _images(storage.members(shard))
        paths += images
        for path in rest:
            if path.endswith(".cls"):
                labels[_key(path)] = storage.read(path).decode().strip()
            else:
                others.append(path)
    if not paths:
        raise FastpetsError(f"{shards}: {len(others)} files but no image in the shards, expected .jpg and the like")
    names = [labels[_key(path)] for path in paths if _key(path) in labels]
    if len(names) < len(paths):
        names = list(_names_by_pattern(PathTable(paths), label_pattern))
    return with_classes(paths, names, shards, others)


def _key(path: str) -> str:
    """What the files of one sample in a shard share: the shard, and the name up to its first dot."""
    member = storage.MEMBER.fullmatch(path)
    assert member is not None
    folder, _, name = member["name"].rpartition("/")
    return f"{member['shard']}::{folder}/{name.split('.')[0]}"


def from_csv(
    table: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> tuple[ImageDataset, list[str]]:
    """ImageDataset from the columns `file` and `label` of a CSV, in its order, and its `split` column ("" where it has none).

    Relative files are looked for below `root`, by default the folder of the table.
    """
    table = Path(table)
    root = os.fspath(root) if root is not None else os.fspath(table.parent)
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            columns = next(rows, [])
            if not {"file", "label"} <= set(columns):
                found = ", ".join(columns) or "none"
                raise FastpetsError(f"{table}: columns {found}, expected file, label and perhaps split")
            names: list[str] = []
            splits: list[str] = []
            paths = PathTable(_table_paths(table, root, rows, columns, names, splits))
    except OSError as error:
        raise FastpetsError(f"{table}: {error.strerror}, expected a CSV with the columns file and label") from None
    except UnicodeDecodeError as error:
        raise FastpetsError(f"{table}: {error}, expected a CSV in UTF-8") from None
    if not paths:
        raise FastpetsError(f"{table}: no rows, expected one an image")
    _check_numbers(table, names)
    return with_classes(paths, names, os.fspath(table)), splits


def _table_paths(
    table: Path, root: str, rows: Iterable[list[str]], columns: list[str], names: list[str], splits: list[str]
) -> Iterator[str]:
    """The path of each row, whose label and split are appended to `names` and `splits`."""
    shared: dict[str, str] = {}  # equal names as one string, for memory's sake
    wanted = [columns.index(name) if name in columns else len(columns) for name in ("file", "label", "split")]
    for number, row in enumerate(rows, start=2):
        row += [""] * (len(columns) + 1 - len(row))
        file, label, part = (row[column] for column in wanted)
        if not any(row):
            continue
        if not file or not label:
            raise FastpetsError(f"{table}, line {number}: {file!r} has no file or no label; fill it in")
        names.append(shared.setdefault(label, label))
        splits.append(shared.setdefault(part, part))
        yield file if storage.is_remote(file) else os.path.join(root, file)


def _images(paths: Iterable[str]) -> tuple[PathTable, list[str]]:
    """The images among files, by their suffixes, and the others."""
    others: list[str] = []

    def images() -> Iterator[str]:
        for path in paths:
            if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
                yield path
            else:
                others.append(path)

    return PathTable(images()), others


def _names_by_pattern(paths: Sequence[str], pattern: str) -> Iterator[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise FastpetsError(f"label pattern {pattern!r}: {error}, expected a regular expression") from None
    if regex.groups < 1:
        raise FastpetsError(f"label pattern {pattern!r}: no group, expected one in parentheses, the label")
    for path in paths:
        match = regex.search(storage.name_of(path))
        if match is None or match[1] is None:
            count = sum((m := regex.search(storage.name_of(each))) is None or m[1] is None for each in paths)
            raise FastpetsError(
                f"{path}: the name does not match the label pattern {pattern!r} ({count} of "
                f"{len(paths)} images do not); give another --label-pattern, or --label-from folder"
            )
        yield match[1]


def _check_numbers(table: Path, names: Sequence[str]) -> None:
    """Raises FastpetsError if most of the labels are numbers and some are not, as by a slip of the pen."""
    distinct = set(names)
    others = {name for name in distinct if not is_number(name)}
    if others and len(others) < len(distinct) / 2:
        line = next(line for line, name in enumerate(names, start=2) if name in others)
        raise FastpetsError(
            f"{table}, line {line}: label {names[line - 2]!r}, expected a whole number like {len(distinct - others)} "
            f"of the {len(distinct)} different labels; mend it, or write all of them as names"
        )

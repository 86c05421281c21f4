"""ImageDatasets from folders, CSV tables, tar shards, lists of files, and other libraries' data sets."""

import csv
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastpets.data import storage
from fastpets.data.dataset import (
    ImageDataset,
    is_number,
    with_class_codes,
    with_class_names,
    with_labels,
    without_labels,
)
from fastpets.data.path_table import PathTable
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.utils.validation import LabelFrom

LABEL_PATTERN = r"(.+)_\d+\.\w+$"  # fastai's for Oxford-IIIT Pet, with any suffix
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k")
) | {".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
# Folders and values of a CSV's column split that mean a part of the split.
TRAIN_NAMES = ("train", "training")
VALID_NAMES = ("valid", "val", "validation", "test")
# Attributes in which torchvision's data sets keep their files and labels: as pairs, or as two lists.
PAIRS = ("samples", "_samples")
FILES_AND_LABELS = (("_images", "_labels"), ("_image_files", "_labels"))


def as_dataset(source: Any, *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """An ImageDataset from anything that a Loader accepts as its source.

    Args:
        source: an ImageDataset, which is returned unchanged; a folder; a CSV (.csv, see `from_csv`); tar shards
            (.tar, see `from_shards`); a sequence of paths, or of (path, label) with labels that are names or numbers
            from 0; a torchvision data set of files, or a torch Subset of one.
        label_from, label_pattern: how the images of a folder are labelled, see `from_folder`.

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
    return _from_torchvision(source)


def _from_sequence(source: Sequence[Any]) -> ImageDataset:
    if all(isinstance(element, (str, os.PathLike)) for element in source):
        return without_labels(source)
    for element in source:
        if not (isinstance(element, tuple | list) and len(element) == 2):
            raise InvalidArgumentError(
                f"source: {element!r} in the list, expected (path, label), or a path in a list of paths"
            )
    paths, labels = [pair[0] for pair in source], [pair[1] for pair in source]
    if all(isinstance(label, str) for label in labels):
        return with_class_names(paths, labels)
    return with_labels(paths, labels)


def _from_torchvision(source: Any) -> ImageDataset:
    """An ImageDataset from a torchvision data set's lists of files and labels; its `transform` is not used."""
    pairs = next((getattr(source, name) for name in PAIRS if hasattr(source, name)), None)
    for name, name_of_labels in FILES_AND_LABELS:
        if pairs is None and hasattr(source, name) and hasattr(source, name_of_labels):
            pairs = list(zip(getattr(source, name), getattr(source, name_of_labels), strict=True))
    kind = type(source).__name__
    if pairs is None:
        raise InvalidArgumentError(
            f"source: {kind}, expected a folder, a CSV, an ImageDataset, a list of (path, label), or a torchvision "
            "data set of files such as ImageFolder; for others, list their files and labels"
        )
    if getattr(source, "_target_types", ["category"]) != ["category"]:
        raise InvalidArgumentError(f"source: {kind} with target_types {source._target_types}, expected 'category' only")
    if getattr(source, "transform", None) is not None:
        warnings.warn(f"the transform of this {kind} is not used; a Loader has size, augment and mean", stacklevel=4)
    labels = [label for _, label in pairs]
    if getattr(source, "target_transform", None) is not None:
        labels = list(map(source.target_transform, labels))
    return with_labels([path for path, _ in pairs], labels, getattr(source, "classes", ()))


def from_folder(
    folder: str | os.PathLike[str], *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN
) -> ImageDataset:
    """An ImageDataset from the images below a folder, sorted by path; hidden files and folders are skipped.

    Args:
        folder: a local path, or one with a scheme such as s3://.
        label_from: where the labels are. "name": in the file names, found by `label_pattern`. "folder": the name of
            the folder that holds the image; the first folder below `folder` is no class if it is named train,
            training, valid, val, validation or test. "none": nowhere. "auto": "folder" if every image lies in a class
            folder, there are at least two of them, and `label_pattern` is the default; else "name".
        label_pattern: a regular expression that is searched in each file name; its first group is the label.

    Warns if "auto" could have chosen otherwise. Raises FastpetsError if there is no image, or one without a label.
    """
    folder = os.fspath(folder)
    paths, others = _images_and_others(storage.find(folder))
    if not paths:
        raise FastpetsError(f"{folder}: {len(others)} files but no image in it, expected .jpg, .png and the like")
    if label_from == "none":
        return without_labels(paths, root=folder, left_out=others)
    names: Iterable[str]
    hint = "take another pattern, or label_from='folder'"
    if label_from == "auto":
        label_from, hint = _label_from(paths, folder, label_pattern)
    if label_from == "folder":
        names = _class_folders(paths, folder)
        if missing := [path for path, name in zip(paths, names, strict=True) if not name]:
            raise FastpetsError(
                f"{missing[0]}: in no folder of its class ({len(missing)} of {len(paths)} images are not); move it "
                "into one, or take the labels from the names: label_from='name'"
            )
    else:
        names = _labels_in_names(paths, label_pattern, hint)
    return with_class_names(paths, names, root=folder, left_out=others, label_from=label_from)


def _label_from(paths: PathTable, folder: str, label_pattern: str) -> tuple[LabelFrom, str]:
    """What "auto" means for a folder, "folder" or "name", and what to do if a file name has no label after all.

    Warns where both readings give at least two classes, and different labels.
    """
    if label_pattern != LABEL_PATTERN:
        return "name", "take another pattern, or label_from='folder'"
    class_folders = _class_folders(paths, folder)
    outside, num_folders = class_folders.count(""), len(set(class_folders) - {""})
    in_names = list(_matches(paths, label_pattern)) if num_folders >= 2 else []
    ambiguous = None not in in_names and len(set(in_names)) >= 2 and in_names != class_folders
    if num_folders >= 2 and not outside:
        if ambiguous:
            warnings.warn(
                f"{folder}: labels are the names of its {num_folders} class folders; the file names would give "
                f"{len(set(in_names))} classes: label_from='name'",
                stacklevel=4,
            )
        return "folder", ""
    if ambiguous:
        warnings.warn(
            f"{folder}: labels are from the file names, since {outside} of {len(paths)} images are in no class folder; "
            f"the others lie in {num_folders}: move all images into such folders for label_from='folder'",
            stacklevel=4,
        )
    reason = f"{outside} images lie in no class folder" if outside else "all images lie in one folder"
    return "name", (
        f"label_from='auto' chose file names, since {reason}; take another pattern, or sort all images into a folder "
        "for each class"
    )


def _class_folders(paths: Sequence[str], folder: str) -> list[str]:
    """The name of each path's folder; "" if that is `folder` itself, or a part of the split such as train."""
    prefix = os.path.join(storage.normalized(folder), "")
    name_of: dict[str, str] = {}  # by parent folder, of which there are few
    found = []
    for path in paths:
        parent = path.rpartition("/")[0]
        if parent not in name_of:
            parts = (f"{parent}/").removeprefix(prefix).split("/")[:-1]
            is_part = parts and parts[0].lower() in TRAIN_NAMES + VALID_NAMES
            name_of[parent] = "".join(parts[1:][-1:] if is_part else parts[-1:])
        found.append(name_of[parent])
    return found


def from_shards(shards: str, *, label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """An ImageDataset from the images in WebDataset's tar files.

    `shards` is a path that may contain * and braces, such as {000..099}. The label of KEY.jpg is the content of KEY.cls
    in the same shard; if an image has none, `label_pattern` finds all labels in the file names. Raises FastpetsError
    if there is no image, or one without a label.
    """
    paths: list[str] = []
    others: list[str] = []
    labels: dict[str, str] = {}
    for shard in storage.expand(shards):
        images, rest = _images_and_others(storage.members(shard))
        paths += images
        for path in rest:
            if path.endswith(".cls"):
                labels[_key(path)] = storage.read(path).decode().strip()
            else:
                others.append(path)
    if not paths:
        raise FastpetsError(f"{shards}: {len(others)} files but no image in the shards, expected .jpg and the like")
    names = [labels[_key(path)] for path in paths if _key(path) in labels]
    has_cls = len(names) == len(paths)
    if not has_cls:
        hint = "take another pattern, or store the labels as KEY.cls"
        names = list(_labels_in_names(PathTable(paths), label_pattern, hint))
    return with_class_names(paths, names, root=shards, left_out=others, label_from="shard" if has_cls else "name")


def _key(path: str) -> str:
    """WebDataset's key of a file in a shard: what the files of one sample share, up to the first dot of their names."""
    member = storage.MEMBER.fullmatch(path)
    assert member is not None
    folder, _, name = member["name"].rpartition("/")
    return f"{member['shard']}::{folder}/{name.split('.')[0]}"


def from_csv(
    table: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> tuple[ImageDataset, Sequence[str]]:
    """An ImageDataset from a CSV in UTF-8 with the columns `file` and `label`, and its column `split` (N,), if any.

    Relative files lie below `root`, by default the folder of the table. Raises FastpetsError for a row without a file
    or a label.
    """
    table = Path(table)
    columns = _read_columns(table)
    files, labels = columns["file"], columns["label"]
    incomplete = pc.or_(pc.equal(files, ""), pc.equal(labels, "")).index(True).as_py()
    if incomplete >= 0:
        file = files[incomplete].as_py()
        raise FastpetsError(f"{table}, row {incomplete + 1}: {file!r} has no file or no label; fill it in")
    prefix = os.path.join(os.fspath(root) if root is not None else os.fspath(table.parent), "")
    is_whole = pc.or_(pc.starts_with(files, "/"), pc.match_substring(files, "://"))
    paths = pc.if_else(is_whole, files, pc.binary_replace_slice(files, 0, 0, prefix)).cast(pa.large_binary())
    codes, names = _codes_and_names(labels)
    _check_numbers(table, codes, names)
    splits: Sequence[str] = ()
    if "split" in columns:
        split_codes, split_names = _codes_and_names(columns["split"])
        splits = np.array(split_names, object)[split_codes].tolist()
    dataset = with_class_codes(PathTable(paths), codes, names, root=os.fspath(table), label_from="table")
    del columns, files, labels, is_whole
    pa.default_memory_pool().release_unused()  # Arrow would keep twice the table's size
    return dataset, splits


def _read_columns(table: Path) -> dict[str, pa.Array]:
    """The columns file, label and, if there, split of a CSV, without rows in which all of them are empty.

    From a million rows to the ImageDataset takes 0.65 s of CPU time (Xeon), where the csv module and a loop took 2.3 s;
    the process grows by 140 MB instead of 80 MB.
    """
    from pyarrow.csv import ConvertOptions, ParseOptions, read_csv

    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
        if not {"file", "label"} <= set(header):
            found = ", ".join(header) or "none"
            raise FastpetsError(f"{table}: columns {found}, expected file, label and perhaps split")
        repeated = pa.dictionary(pa.int32(), pa.string())
        types = {"file": pa.large_string(), "label": repeated, "split": repeated}
        names = [name for name in types if name in header]
        convert = ConvertOptions(include_columns=names, column_types=types)
        read = read_csv(table, parse_options=ParseOptions(newlines_in_values=True), convert_options=convert)
    except OSError as error:
        raise FastpetsError(f"{table}: {error.strerror}, expected a CSV with the columns file and label") from None
    except ValueError as error:  # pa.ArrowInvalid and UnicodeDecodeError
        raise FastpetsError(f"{table}: {error}, expected a CSV in UTF-8 with a header") from None
    columns = {name: read[name].unify_dictionaries().combine_chunks() for name in names}
    is_empty = np.logical_and.reduce([pc.equal(column, "").to_numpy(False) for column in columns.values()])
    if is_empty.all():
        raise FastpetsError(f"{table}: no rows, expected one for each image")
    return {name: column.filter(pa.array(~is_empty)) for name, column in columns.items()} if is_empty.any() else columns


def _codes_and_names(column: pa.DictionaryArray) -> tuple[np.ndarray, list[str]]:
    """An index (N,) into the distinct strings of a column, and these, as far as they occur."""
    used, codes = np.unique(column.indices.to_numpy(), return_inverse=True)
    return codes, column.dictionary.take(pa.array(used)).to_pylist()


def _images_and_others(paths: Iterable[str]) -> tuple[PathTable, list[str]]:
    """The files whose suffix is that of an image, and the others."""
    others: list[str] = []

    def images() -> Iterator[str]:
        for path in paths:
            if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
                yield path
            else:
                others.append(path)

    return PathTable(images()), others


def _matches(paths: Sequence[str], pattern: str) -> Iterator[str | None]:
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


def _labels_in_names(paths: Sequence[str], pattern: str, hint: str) -> Iterator[str]:
    """The label in each file name. Raises FastpetsError with `hint`, what to do, for a name without one."""
    for path, name in zip(paths, _matches(paths, pattern), strict=True):
        if name is None:
            count = sum(match is None for match in _matches(paths, pattern))
            raise FastpetsError(
                f"{path}: no label in the file name by label_pattern={pattern!r} ({count} of {len(paths)} images have "
                f"none); {hint}"
            )
        yield name


def _check_numbers(table: Path, codes: np.ndarray, names: Sequence[str]) -> None:
    """Raises FastpetsError if most of the distinct labels are numbers but some are not: probably an error."""
    others = [code for code, name in enumerate(names) if not is_number(name)]
    if others and len(others) < len(names) / 2:
        row = int(np.flatnonzero(np.isin(codes, others))[0])
        raise FastpetsError(
            f"{table}, row {row + 1}: label {names[codes[row]]!r}, expected a whole number like "
            f"{len(names) - len(others)} of the {len(names)} distinct labels; correct it, or write all of them as names"
        )

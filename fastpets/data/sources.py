"""ImageDatasets from folders, tables, tar shards, lists of files, and torchvision data sets."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from fastpets.data import storage
from fastpets.data.dataset import (
    NO_LABEL,
    PART_OF,
    ImageDataset,
    as_labels,
    is_number,
    labels_from_codes,
    labels_from_names,
)
from fastpets.data.path_table import PathTable, as_path_table
from fastpets.data.tables import COLUMNS, Table, is_table, read_table
from fastpets.errors import FastpetsError, InvalidArgumentError, first_few, warn
from fastpets.utils.validation import LabelFrom, check_choice

LABEL_SEPARATORS = (";", ",", "|", " ")  # of cells with several labels, which are refused
LABEL_PATTERN = r"(.+)_\d+\.\w+$"  # fastai's for Oxford-IIIT Pet, with any suffix
# Attributes in which torchvision's data sets keep their files and labels: as pairs, or as two lists.
PAIRS = ("samples", "_samples")
FILES_AND_LABELS = (("_images", "_labels"), ("_image_files", "_labels"))
LABEL_SUFFIXES = (".cls", ".json")  # of members that contain the label of an image, the preferred one first
ANOTHER_PATTERN = "pass another label_pattern"


def as_dataset(source: Any, *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """An ImageDataset from anything that a Loader accepts as its source.

    Args:
        source: an ImageDataset, which is returned unchanged; a folder; a table (.csv or .tsv, see `from_csv`); tar
            shards (.tar, see `from_shards`); a sequence of paths, or of (path, label) with labels that are names or
            numbers from 0; a torchvision data set of files, or a torch Subset of one.
        label_from: how the images of a folder are labelled, see `from_folder`. For a table and for shards "none" means
            no labels, and the other values make no difference.
        label_pattern: see `from_folder`; for shards, too.

    Raises FastpetsError for anything else.
    """
    check_choice("label_from", label_from, LabelFrom)
    if isinstance(source, ImageDataset):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = storage.expanded(os.fspath(source))
        if is_table(path):
            return from_csv(path, label_from=label_from)
        if is_tar(path):
            return from_shards(path, label_from=label_from, label_pattern=label_pattern)
        return from_folder(path, label_from=label_from, label_pattern=label_pattern)
    if hasattr(source, "dataset") and hasattr(source, "indices"):  # torch.utils.data.Subset
        return as_dataset(source.dataset).select(np.asarray(source.indices, np.int64))
    if isinstance(source, Sequence):
        return _from_sequence(source)
    return _from_torchvision(source)


def _from_sequence(source: Sequence[Any]) -> ImageDataset:
    if all(isinstance(element, (str, os.PathLike)) for element in source):
        return _unlabelled(source)
    for element in source:
        is_pair = isinstance(element, tuple | list) and len(element) == 2
        if not (is_pair and isinstance(element[0], str | os.PathLike)):
            raise InvalidArgumentError(
                f"source: {element!r} in the list, expected (path, label), or a path in a list of paths"
            )
    paths, labels = [pair[0] for pair in source], [pair[1] for pair in source]
    if all(isinstance(label, str) for label in labels):
        dataset = ImageDataset(as_path_table(paths), *labels_from_names(labels))
    else:
        dataset = _with_numbers(paths, labels)
    firsts, others = as_path_table(dataset.paths).repeats()
    for first, other in zip(firsts.tolist(), others.tolist(), strict=True):
        if dataset.labels[first] != dataset.labels[other]:
            raise InvalidArgumentError(
                f"source: {dataset.paths[first]} has label {labels[first]!r} in pair {first} and {labels[other]!r} in "
                f"pair {other}; expected one label for each file"
            )
    return dataset


def _from_torchvision(source: Any) -> ImageDataset:
    """An ImageDataset from a torchvision data set's lists of files and labels; its `transform` is not used."""
    pairs = next((getattr(source, name) for name in PAIRS if hasattr(source, name)), None)
    for files_name, labels_name in FILES_AND_LABELS:
        if pairs is None and hasattr(source, files_name) and hasattr(source, labels_name):
            pairs = list(zip(getattr(source, files_name), getattr(source, labels_name), strict=True))
    kind = type(source).__name__
    if pairs is None:
        raise InvalidArgumentError(
            f"source: {kind}, expected a folder, a CSV, an ImageDataset, a list of (path, label), or a torchvision "
            "data set of files such as ImageFolder; for others, list their files and labels"
        )
    if getattr(source, "_target_types", ["category"]) != ["category"]:
        raise InvalidArgumentError(f"source: {kind} with target_types {source._target_types}, expected 'category' only")
    if getattr(source, "transform", None) is not None:
        warn(f"the transform of this {kind} is not used; pass size, augment and mean to the Loader instead")
    labels = [label for _, label in pairs]
    if getattr(source, "target_transform", None) is not None:
        labels = list(map(source.target_transform, labels))
    return _with_numbers([path for path, _ in pairs], labels, getattr(source, "classes", ()))


def from_folder(
    folder: str | os.PathLike[str], *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN
) -> ImageDataset:
    """An ImageDataset from the images below a folder, sorted by path; hidden files and folders are skipped.

    Args:
        folder: a local path, or one with a scheme such as s3://.
        label_from: where the labels are. "name": in the file names, found by `label_pattern`. "folder": the name of
            the folder that holds the image; the first folder below `folder` is no class if it is named train,
            training, valid, val, validation, test or testing. "none": no labels. "auto": "folder" if every image lies
            in a class folder, there are at least two of them, and `label_pattern` is the default; else "name".
        label_pattern: a regular expression that is searched in each file name; its first group is the label.

    An image that several symbolic links lead to counts once. Warns if "auto" has chosen one of two plausible readings.
    Raises FastpetsError if there is no image, or one without a label.
    """
    check_choice("label_from", label_from, LabelFrom)
    folder = storage.expanded(os.fspath(folder))
    images, links = list_folder(folder)
    if (is_repeated := storage.repeated(images.paths, links)).any():
        images = images.select(np.flatnonzero(~is_repeated))
    return label_folder(images, folder, label_from, label_pattern)


def list_folder(folder: str) -> tuple[ImageDataset, set[str]]:
    """The images below a folder, without labels, and the symbolic links, for `storage.repeated`.

    Raises FastpetsError if there is no image.
    """
    links: set[str] = set()
    paths, ignored = _images_and_others(storage.find(folder, links))
    if not paths:
        raise FastpetsError(f"{folder}: no image among {len(ignored)} files, expected .jpg, .png and the like")
    return _unlabelled(paths, ignored, folder), links


def label_folder(images: ImageDataset, folder: str, label_from: LabelFrom, label_pattern: str) -> ImageDataset:
    """The images of a folder with labels, as `from_folder` describes them. The classes are those of these images."""
    paths = as_path_table(images.paths)
    if label_from == "none":
        return images
    names: Iterable[str]
    hint = f"{ANOTHER_PATTERN}, or label_from='folder'"
    if label_from == "auto":
        label_from, hint = _label_from(paths, folder, label_pattern)
    if label_from == "folder":
        names = _class_folders(paths, folder)
        if missing := [path for path, name in zip(paths, names, strict=True) if not name]:
            raise FastpetsError(
                f"{missing[0]}: not in a class folder ({len(missing)} of {len(paths)} images; top folders named train, "
                "valid or test are the split); move it into one, or pass label_from='name'"
            )
    else:
        names = _labels_in_names(paths, label_pattern, hint)
    labels, classes = labels_from_names(names)
    return replace(images, labels=labels, classes=classes, label_from=label_from)


def _label_from(paths: PathTable, folder: str, label_pattern: str) -> tuple[LabelFrom, str]:
    """Chooses "folder" or "name" for "auto", and returns it with what to do if a file name has no label.

    Warns if class folders and file names both give at least two classes, but different labels.
    """
    if label_pattern != LABEL_PATTERN:
        return "name", f"{ANOTHER_PATTERN}, or label_from='folder'"
    class_folders = _class_folders(paths, folder)
    outside, num_folders = class_folders.count(""), len(set(class_folders) - {""})
    in_names = list(_matches(paths, label_pattern)) if num_folders >= 2 else []
    ambiguous = None not in in_names and len(set(in_names)) >= 2 and in_names != class_folders
    if num_folders >= 2 and not outside:
        if ambiguous:
            warn(
                f"{folder}: labels are the names of its {num_folders} class folders; pass label_from='name' for the "
                f"{len(set(in_names))} classes in the file names"
            )
        return "folder", ""
    if ambiguous:
        warn(
            f"{folder}: labels are from the file names, since {outside} of {len(paths)} images are in no class folder; "
            f"to use the {num_folders} class folders, move all images into them and pass label_from='folder'"
        )
    reason = f"{outside} images lie in no class folder" if outside else "all images lie in one folder"
    return "name", (
        f"label_from='auto' chose file names, since {reason}; {ANOTHER_PATTERN}, or move all images into a folder for "
        "each class"
    )


def _class_folders(paths: Sequence[str], folder: str) -> list[str]:
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


def from_shards(shards: str, *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """An ImageDataset from the images in WebDataset's tar files.

    The files of a sample have the same KEY: the path up to the first dot of the name. In a sample with KEY.jpg, others
    such as KEY.mask.png are no images. Otherwise KEY.ANYTHING.jpg is one, and KEY.ANYTHING.cls may have its label.

    Args:
        shards: a path that may contain * and braces, such as {000..099}.
        label_from: "none" for images without labels. Otherwise the label of KEY.jpg is the content of KEY.cls in the
            same shard, or in KEY.json a string, a whole number, or that of an object's `label`, `class` or `target`. If
            the shards contain no label, all labels are found in the file names.
        label_pattern: as in `from_folder`.

    Raises FastpetsError if there is no image, one without a label, or a shard that is damaged; see `storage.members`.
    """
    ignored: list[str] = []
    labels: list[str | None] = []

    def images() -> Iterator[str]:
        known: dict[str, str] = {}  # so that equal labels are one object
        for shard in storage.expand(shards):
            for path, label in _samples(shard, ignored, with_labels=label_from != "none"):
                labels.append(label if label is None else known.setdefault(label, label))
                yield path

    paths = PathTable(images())
    if not paths:
        raise FastpetsError(f"{shards}: {len(ignored)} files but no image in the shards, expected .jpg and the like")
    if label_from == "none":
        return _unlabelled(paths, ignored, shards)
    names: Iterable[str] = [label for label in labels if label is not None]
    is_labelled = bool(names)
    if not is_labelled:
        names = _labels_in_names(paths, label_pattern, f"{ANOTHER_PATTERN}, or store the labels as KEY.cls")
    elif (num_missing := labels.count(None)) > 0:
        raise FastpetsError(
            f"{paths[labels.index(None)]}: no label in the shard ({num_missing} of {len(paths)} images have none); add "
            "KEY.cls or KEY.json beside the image"
        )
    return ImageDataset(paths, *labels_from_names(names), tuple(ignored), shards, "shard" if is_labelled else "name")


def _samples(shard: str, ignored: list[str], *, with_labels: bool) -> Iterator[tuple[str, str | None]]:
    """The path of each image in a shard, with its label if the shard contains one. Adds other files to `ignored`."""
    images: list[tuple[str, str, str]] = []  # path, key, and path without suffix
    labels: dict[str, dict[str, str | FastpetsError | None]] = {suffix: {} for suffix in LABEL_SUFFIXES}
    for path, content in storage.members(shard, LABEL_SUFFIXES if with_labels else ()):
        member = storage.MEMBER.fullmatch(path)
        assert member is not None
        stem, suffix = os.path.splitext(member["name"])
        folder, slash, name = stem.rpartition("/")
        if storage.is_image(path):
            images.append((path, folder + slash + name.split(".")[0], stem))
        elif suffix.lower() not in LABEL_SUFFIXES:
            ignored.append(path)
        elif content is not None:
            try:
                labels[suffix.lower()][stem] = _label_in(path, content)
            except FastpetsError as error:
                labels[suffix.lower()][stem] = error
    counts = Counter(key for _, key, stem in images if stem == key)
    if repeated := [key for key, count in counts.items() if count > 1]:
        warn(f"{shard}: {len(repeated)} samples have several images, such as {repeated[0]}; each image counts")
    for path, key, stem in images:
        if stem != key and key in counts:
            ignored.append(path)
            continue
        found = (labels[suffix].get(part) for suffix in LABEL_SUFFIXES for part in (stem, key))
        label = next((label for label in found if label is not None), None)
        if isinstance(label, FastpetsError):
            raise label
        yield path, label


def _label_in(path: str, content: bytes) -> str | None:
    """The label in a member KEY.cls or KEY.json; None if it is a JSON object without a label."""
    try:
        label: Any = content.decode().strip()
        if path.lower().endswith(".json"):
            label = json.loads(label)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        expected = "expected a label as text in UTF-8" + " or JSON" * path.lower().endswith(".json")
        raise FastpetsError(f"{path}: begins with {content[:12]!r}, {expected} ({error})") from None
    if isinstance(label, dict):
        by_name = {name.strip().casefold(): value for name, value in label.items()}
        label = next((by_name[name] for name in COLUMNS["label"] if by_name.get(name) is not None), None)
        if label is None:
            return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, str | int) or not (name := str(label).strip()):
        raise FastpetsError(f"{path}: label {label!r}, expected a name or a whole number")
    return name


def from_csv(
    csv_file: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    label_from: LabelFrom = "auto",
) -> ImageDataset:
    """An ImageDataset from a table with the columns `file` and `label`, see `tables.read_table`.

    Relative files lie below `root`, by default the folder of the table. With `label_from="none"` the column `label` is
    not used and may be missing. Raises FastpetsError for a row without a label, and for a file with two labels.
    """
    return label_table(open_table(csv_file, root, label_from))


def open_table(csv_file: str | os.PathLike[str], root: str | os.PathLike[str] | None, label_from: LabelFrom) -> Table:
    """Reads a table for `from_csv`, which describes the arguments."""
    csv_file = storage.expanded(os.fspath(csv_file))
    root = csv_folder(csv_file) if root is None else storage.expanded(os.fspath(root))
    return read_table(csv_file, root, with_labels=label_from != "none")


def label_table(table: Table, ids: np.ndarray | None = None) -> ImageDataset:
    """The images of the rows `ids` of a table, by default all, with labels if these were read.

    The classes are those of these images. Raises FastpetsError for a row without a label.
    """
    paths = table.paths if ids is None or len(ids) == len(table.paths) else table.paths.select(ids)
    if table.labels is None:
        return _unlabelled(paths, (), table.path)
    codes, names, title = table.labels
    codes = codes if ids is None else codes[ids]
    used = np.flatnonzero(np.bincount(codes, minlength=len(names)))

    def reject(wrong: list[int], problem: str) -> NoReturn:
        i = int(np.isin(codes, wrong).argmax())
        table.reject(i if ids is None else int(ids[i]), f"{title} {names[codes[i]]!r} of {paths[i]}, {problem}")

    if empty := [code for code in used.tolist() if not names[code].strip()]:
        reject(empty, "expected no empty cell; fill it in")
    others = [code for code in used.tolist() if not is_number(names[code])]
    if others and len(others) < len(used) / 2:  # more than half are numbers: probably an error
        numbers = f"{len(used) - len(others)} of the {len(used)} distinct labels"
        reject(others, f"expected a whole number like {numbers}; correct it, or write all of them as names")
    if several := _several_labels({names[code]: code for code in used.tolist()}):
        code, parts = several
        reject(
            [code],
            f"expected one class for each image, but {first_few([repr(part) for part in parts])} are classes, too; "
            "keep one, or give the combination a name of its own: multi-label images are not supported",
        )
    code_of = np.zeros(len(names), np.int64)
    code_of[used] = np.arange(len(used))
    labels = labels_from_codes(code_of[codes], [names[code] for code in used.tolist()])
    return ImageDataset(paths, *labels, (), table.path, "table")


def _several_labels(code_of: dict[str, int]) -> tuple[int, list[str]] | None:
    """The first label that consists of other labels with a separator between them, as (code, labels), or None."""
    for name, code in code_of.items():
        for separator in LABEL_SEPARATORS:
            parts = [part.strip() for part in name.split(separator)]
            if len(parts) > 1 and all(part in code_of for part in parts):
                return code, parts
    return None


def is_tar(source: Any) -> bool:
    """Whether a source is the path of tar shards."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(".tar")


def csv_folder(csv_file: str) -> str:
    """The folder of a table, below which its relative files lie by default."""
    return os.path.dirname(csv_file) or "."


def _unlabelled(
    paths: Sequence[str | os.PathLike[str]], ignored_files: Sequence[str] = (), root: str = ""
) -> ImageDataset:
    """An ImageDataset whose labels are all -1."""
    return ImageDataset(
        as_path_table(paths), np.full(len(paths), NO_LABEL), (), tuple(ignored_files), root, label_from="none"
    )


def _with_numbers(
    paths: Sequence[str | os.PathLike[str]], labels: Sequence[int], classes: Sequence[Any] = ()
) -> ImageDataset:
    """An ImageDataset from numeric labels; without `classes` these are named "0", "1" and so on."""
    numbers = as_labels(labels)
    names = tuple(map(str, classes)) or tuple(map(str, range(int(numbers.max(initial=NO_LABEL)) + 1)))
    return ImageDataset(as_path_table(paths), numbers, names)


def _images_and_others(paths: Iterable[str]) -> tuple[PathTable, list[str]]:
    """The files with an image suffix, and the others."""
    others: list[str] = []

    def images() -> Iterator[str]:
        for path in paths:
            if storage.is_image(path):
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
    """The label in each file name. Raises FastpetsError, with `hint` as what to do, for a name without a label."""
    for path, name in zip(paths, _matches(paths, pattern), strict=True):
        if name is None:
            count = sum(match is None for match in _matches(paths, pattern))
            raise FastpetsError(
                f"{path}: no label in the file name by label_pattern={pattern!r} ({count} of {len(paths)} images have "
                f"none); {hint}"
            )
        yield name

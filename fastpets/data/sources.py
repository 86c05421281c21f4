"""ImageDatasets from folders, CSV files, tar shards, lists of files, and torchvision data sets."""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastpets.data import storage
from fastpets.data.dataset import (
    NO_LABEL,
    ImageDataset,
    as_labels,
    is_number,
    labels_from_codes,
    labels_from_names,
)
from fastpets.data.path_table import PathTable, as_path_table
from fastpets.errors import FastpetsError, InvalidArgumentError, warn
from fastpets.utils.validation import LabelFrom, check_choice

LABEL_PATTERN = r"(.+)_\d+\.\w+$"  # fastai's for Oxford-IIIT Pet, with any suffix
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k")
) | {".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
COLUMNS = ("file", "label", "split")  # of a CSV
# Names of the parts of a split: of folders, and values of a CSV's column `split`.
TRAIN_NAMES = ("train", "training")
VALID_NAMES = ("valid", "val", "validation", "test")
# Attributes in which torchvision's data sets keep their files and labels: as pairs, or as two lists.
PAIRS = ("samples", "_samples")
FILES_AND_LABELS = (("_images", "_labels"), ("_image_files", "_labels"))
ANOTHER_PATTERN = "pass another label_pattern"


def as_dataset(source: Any, *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """An ImageDataset from anything that a Loader accepts as its source.

    Args:
        source: an ImageDataset, which is returned unchanged; a folder; a CSV (.csv, see `from_csv`); tar shards
            (.tar, see `from_shards`); a sequence of paths, or of (path, label) with labels that are names or numbers
            from 0; a torchvision data set of files, or a torch Subset of one.
        label_from: how the images of a folder are labelled, see `from_folder`. For a CSV and for shards "none" means no
            labels, and the other values make no difference.
        label_pattern: see `from_folder`; for shards, too.

    Raises FastpetsError for anything else.
    """
    check_choice("label_from", label_from, LabelFrom)
    if isinstance(source, ImageDataset):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if is_csv(path):
            return from_csv(path, label_from=label_from)[0]
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
        return ImageDataset(as_path_table(paths), *labels_from_names(labels))
    return _with_numbers(paths, labels)


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
            training, valid, val, validation or test. "none": no labels. "auto": "folder" if every image lies in a class
            folder, there are at least two of them, and `label_pattern` is the default; else "name".
        label_pattern: a regular expression that is searched in each file name; its first group is the label.

    Warns if "auto" has chosen one of two plausible readings. Raises FastpetsError if there is no image, or one without
    a label.
    """
    check_choice("label_from", label_from, LabelFrom)
    folder = os.fspath(folder)
    paths, ignored = _images_and_others(storage.find(folder))
    if not paths:
        raise FastpetsError(f"{folder}: no image among {len(ignored)} files, expected .jpg, .png and the like")
    if label_from == "none":
        return _unlabelled(paths, ignored, folder)
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
    return ImageDataset(paths, *labels_from_names(names), tuple(ignored), folder, label_from)


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
            is_split = parts and parts[0].lower() in TRAIN_NAMES + VALID_NAMES
            class_by_parent[parent] = "".join(parts[1:][-1:] if is_split else parts[-1:])
        found.append(class_by_parent[parent])
    return found


def from_shards(shards: str, *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """An ImageDataset from the images in WebDataset's tar files.

    Args:
        shards: a path that may contain * and braces, such as {000..099}.
        label_from: "none" for images without labels. Otherwise the label of KEY.jpg is the content of KEY.cls in the
            same shard; if an image has no such file, all labels are found in the file names.
        label_pattern: as in `from_folder`.

    Raises FastpetsError if there is no image, or one without a label.
    """
    labels: dict[str, str] = {}

    def without_cls() -> Iterator[str]:
        for shard in storage.expand(shards):
            for path, content in storage.members(shard, read_suffix=".cls"):
                if content is None:
                    yield path
                elif label_from != "none":
                    labels[_key(path)] = _decoded(path, content)

    paths, ignored = _images_and_others(without_cls())
    if not paths:
        raise FastpetsError(f"{shards}: {len(ignored)} files but no image in the shards, expected .jpg and the like")
    if label_from == "none":
        return _unlabelled(paths, ignored, shards)
    names = [labels[_key(path)] for path in paths if _key(path) in labels]
    has_cls = len(names) == len(paths)
    if not has_cls:
        names = list(_labels_in_names(paths, label_pattern, f"{ANOTHER_PATTERN}, or store the labels as KEY.cls"))
    return ImageDataset(paths, *labels_from_names(names), tuple(ignored), shards, "shard" if has_cls else "name")


def _key(path: str) -> str:
    """WebDataset's key of a file in a shard: its path up to the first dot of its name. A sample's files share it."""
    member = storage.MEMBER.fullmatch(path)
    assert member is not None
    folder, _, name = member["name"].rpartition("/")
    return f"{member['shard']}::{folder}/{name.split('.')[0]}"


def _decoded(path: str, content: bytes) -> str:
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        raise FastpetsError(f"{path}: begins with {content[:12]!r}, expected a label as text in UTF-8") from None


def from_csv(
    csv_file: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    label_from: LabelFrom = "auto",
) -> tuple[ImageDataset, Sequence[str]]:
    """An ImageDataset from a CSV in UTF-8 with the columns `file` and `label`, and its column `split` (N,), if any.

    Relative files lie below `root`, by default the folder of the CSV. With `label_from="none"` the column `label` is
    not used and may be missing. Raises FastpetsError for a row without a file or a label.
    """
    csv_file = os.fspath(csv_file)
    needed = ("file",) if label_from == "none" else ("file", "label")
    columns = _read_columns(csv_file, needed)
    incomplete = min((row for name in needed if (row := _first_empty(columns[name])) >= 0), default=None)
    if incomplete is not None:
        found = ", ".join(f"{name} {columns[name][incomplete].as_py()!r}" for name in needed)
        raise FastpetsError(
            f"{csv_file}, line {line_of(csv_file, incomplete)}: {found}, expected no empty column; fill it in"
        )
    prefix = os.path.join(csv_folder(csv_file) if root is None else os.fspath(root), "")
    files = columns["file"]
    is_absolute = pc.or_(pc.starts_with(files, "/"), pc.match_substring(files, "://"))
    paths = pc.if_else(is_absolute, files, pc.binary_replace_slice(files, 0, 0, prefix)).cast(pa.large_binary())
    splits: Sequence[str] = ()
    if "split" in columns:
        codes, names = _codes_and_names(columns["split"])
        splits = np.array(names, object)[codes].tolist()
    if label_from == "none":
        dataset = _unlabelled(PathTable(paths), (), csv_file)
    else:
        codes, names = _codes_and_names(columns["label"])
        _check_numbers(csv_file, codes, names)
        dataset = ImageDataset(PathTable(paths), *labels_from_codes(codes, names), (), csv_file, "table")
    del columns, files, is_absolute
    pa.default_memory_pool().release_unused()  # otherwise Arrow keeps twice the size of the CSV allocated
    return dataset, splits


def is_csv(source: Any) -> bool:
    """Whether a source is the path of a CSV."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(".csv")


def is_tar(source: Any) -> bool:
    """Whether a source is the path of tar shards."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(".tar")


def csv_folder(csv_file: str) -> str:
    """The folder of a CSV, below which its relative files lie by default."""
    return os.path.dirname(csv_file) or "."


def line_of(csv_file: str, row: int) -> int:
    """The line of a CSV on which a row starts. Rows count from 0, without empty ones, as in `from_csv`."""
    with _opened(csv_file) as file:
        reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
        header = next(reader)
        columns = [header.index(name) for name in COLUMNS if name in header]
        line = reader.line_num + 1
        for fields in reader:
            if fields and any(fields[column] for column in columns):
                if row == 0:
                    break
                row -= 1
            line = reader.line_num + 1
    return line


def _opened(csv_file: str) -> IO[bytes]:
    return io.BytesIO(storage.read(csv_file)) if storage.is_remote(csv_file) else open(csv_file, "rb")


def _read_columns(csv_file: str, needed: Sequence[str]) -> dict[str, pa.Array]:
    """Those of the columns file, label and split that a CSV has, without rows in which all of them are empty.

    From a million rows to the ImageDataset takes 0.65 s of CPU time (Xeon), and the process grows by 140 MB.
    """
    from pyarrow.csv import ConvertOptions, ParseOptions, read_csv

    try:
        with _opened(csv_file) as file:
            text = io.TextIOWrapper(file, "utf-8-sig", newline="")
            header = next(csv.reader(text), [])
            if not set(needed) <= set(header):
                found = ", ".join(header) or "none"
                expected = " and ".join(needed)
                raise FastpetsError(f"{csv_file}: columns {found}, expected {expected}, and optionally split")
            repeated = pa.dictionary(pa.int32(), pa.string())
            types = {"file": pa.large_string(), "label": repeated, "split": repeated}
            names = [name for name in COLUMNS if name in header]
            convert = ConvertOptions(include_columns=names, column_types=types)
            file.seek(0)
            read = read_csv(file, parse_options=ParseOptions(newlines_in_values=True), convert_options=convert)
    except OSError as error:
        raise FastpetsError(
            f"{csv_file}: {error.strerror or error}, expected a CSV with the columns {' and '.join(needed)}"
        ) from None
    except (ValueError, csv.Error) as error:  # pa.ArrowInvalid and UnicodeDecodeError are ValueErrors
        raise FastpetsError(f"{csv_file}: {error}, expected a CSV in UTF-8 with a header") from None
    columns = {name: read[name].unify_dictionaries().combine_chunks() for name in names}
    is_empty = np.logical_and.reduce([pc.equal(column, "").to_numpy(False) for column in columns.values()])
    if is_empty.all():
        raise FastpetsError(f"{csv_file}: no rows, expected one for each image")
    return {name: column.filter(pa.array(~is_empty)) for name, column in columns.items()} if is_empty.any() else columns


def _first_empty(column: pa.Array) -> int:
    """The index of the first empty string of a column, or -1."""
    return pc.equal(column, "").index(True).as_py()


def _codes_and_names(column: pa.DictionaryArray) -> tuple[np.ndarray, list[str]]:
    """An index (N,) into the distinct strings that occur in a column, and these strings."""
    used, codes = np.unique(column.indices.to_numpy(), return_inverse=True)
    return codes, column.dictionary.take(pa.array(used)).to_pylist()


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
    """The label in each file name. Raises FastpetsError, with `hint` as what to do, for a name without a label."""
    for path, name in zip(paths, _matches(paths, pattern), strict=True):
        if name is None:
            count = sum(match is None for match in _matches(paths, pattern))
            raise FastpetsError(
                f"{path}: no label in the file name by label_pattern={pattern!r} ({count} of {len(paths)} images have "
                f"none); {hint}"
            )
        yield name


def _check_numbers(csv_file: str, codes: np.ndarray, names: Sequence[str]) -> None:
    """Raises FastpetsError if more than half of the distinct labels are numbers, but not all: probably an error."""
    others = [code for code, name in enumerate(names) if not is_number(name)]
    if others and len(others) < len(names) / 2:
        row = int(np.flatnonzero(np.isin(codes, others))[0])
        raise FastpetsError(
            f"{csv_file}, line {line_of(csv_file, row)}: label {names[codes[row]]!r}, expected a whole number like "
            f"{len(names) - len(others)} of the {len(names)} distinct labels; correct it, or write all of them as names"
        )

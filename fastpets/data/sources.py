"""ImageDatasets from folders, tables, lists of files, and, by other modules, shards and other libraries' data sets."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from fastpets.data import storage
from fastpets.data.dataset import (
    ImageDataset,
    is_number,
    labels_from_codes,
    labels_from_names,
)
from fastpets.data.hf_datasets import from_hf, is_hf
from fastpets.data.labels import (
    ANOTHER_PATTERN,
    LABEL_PATTERN,
    class_folders,
    labels_in_names,
    matches,
    unlabelled,
    with_numbers,
)
from fastpets.data.other_datasets import from_library
from fastpets.data.parquet import from_parquet, is_parquet
from fastpets.data.path_table import PathTable, as_path_table
from fastpets.data.shards import from_shards, is_tar
from fastpets.data.tables import Table, is_table, read_table
from fastpets.errors import FastpetsError, InvalidArgumentError, first_few, warn
from fastpets.utils.validation import LabelFrom, check_choice

LABEL_SEPARATORS = (";", ",", "|")  # of cells with several labels, which are refused; a space is part of many names


def as_dataset(source: Any, *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """An ImageDataset from anything that a Loader accepts as its source.

    Args:
        source: an ImageDataset, which is returned unchanged; a folder; a table (.csv or .tsv, see `from_csv`); tar
            shards (.tar, see `from_shards`); Parquet files (.parquet, see `from_parquet`); a sequence of paths, or of
            (path, label) with labels that are names or numbers from 0; a data set of files of torchvision or timm, or
            a torch Subset of one; a data set of Hugging Face (see `from_hf`).
        label_from: how the images of a folder are labelled, see `from_folder`, and those of a list of paths, see
            `label_paths`. For tables, shards, Parquet files and data sets of Hugging Face, "none" means no labels, and
            the other values make no difference.
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
        if is_parquet(path):
            return from_parquet(path, with_labels=label_from != "none")[0]
        return from_folder(path, label_from=label_from, label_pattern=label_pattern)
    if hasattr(source, "dataset") and hasattr(source, "indices"):  # torch.utils.data.Subset
        return as_dataset(source.dataset).select(np.asarray(source.indices, np.int64))
    if is_hf(source):
        return from_hf(source, with_labels=label_from != "none")
    if is_paths(source):
        return label_paths(source, label_from, label_pattern)
    return _from_pairs(source) if isinstance(source, Sequence) else from_library(source)


def is_paths(source: Any) -> bool:
    """Whether a source is a sequence of paths, such as a list."""
    is_sequence = isinstance(source, Sequence) and not isinstance(source, str)
    return is_sequence and all(isinstance(element, str | os.PathLike) for element in source)


def label_paths(paths: Sequence[str | os.PathLike[str]], label_from: LabelFrom, label_pattern: str) -> ImageDataset:
    """The images of a list of paths, in its order, labelled as those of the deepest folder that holds all of them.

    With "auto" they are labelled by a `label_pattern` that is not the default, else not at all.
    """
    images = unlabelled(as_path_table(paths))
    if label_from == "auto":
        label_from = "none" if label_pattern == LABEL_PATTERN else "name"
    return label_folder(images, common_folder(images), label_from, label_pattern)


def common_folder(images: ImageDataset) -> str:
    """The deepest folder that holds all images."""
    return os.fsdecode(as_path_table(images.paths).folder()) or "."


def _from_pairs(source: Sequence[Any]) -> ImageDataset:
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
        dataset = with_numbers(paths, labels)
    firsts, others = as_path_table(dataset.paths).repeats()
    for first, other in zip(firsts.tolist(), others.tolist(), strict=True):
        if dataset.labels[first] != dataset.labels[other]:
            raise InvalidArgumentError(
                f"source: {dataset.paths[first]} has label {labels[first]!r} in pair {first} and {labels[other]!r} in "
                f"pair {other}; expected one label for each file"
            )
    return dataset


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
    return unlabelled(paths, ignored, folder), links


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
        names = class_folders(paths, folder)
        if missing := [path for path, name in zip(paths, names, strict=True) if not name]:
            raise FastpetsError(
                f"{missing[0]}: not in a class folder ({len(missing)} of {len(paths)} images; top folders named train, "
                "valid or test are the split); move it into one, or pass label_from='name'"
            )
    else:
        names = labels_in_names(paths, label_pattern, hint)
    labels, classes = labels_from_names(names)
    return replace(images, labels=labels, classes=classes, label_from=label_from)


def _label_from(paths: PathTable, folder: str, label_pattern: str) -> tuple[LabelFrom, str]:
    """Chooses "folder" or "name" for "auto", and returns it with what to do if a file name has no label.

    Warns if class folders and file names both give at least two classes, but different labels.
    """
    if label_pattern != LABEL_PATTERN:
        return "name", f"{ANOTHER_PATTERN}, or label_from='folder'"
    folders = class_folders(paths, folder)
    outside, num_folders = folders.count(""), len(set(folders) - {""})
    in_names = list(matches(paths, label_pattern)) if num_folders >= 2 else []
    ambiguous = None not in in_names and len(set(in_names)) >= 2 and in_names != folders
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
        return unlabelled(paths, (), table.path)
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
    if similar := _shared_parts([names[code] for code in used.tolist()]):
        warn(
            f"{table.path}: labels such as {first_few([repr(name) for name in similar])} are taken as one class each; "
            "if they are several labels, keep one: multi-label images are not supported"
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


def _shared_parts(names: Sequence[str]) -> list[str]:
    """The labels that have a part, between separators, in common with another label, and so may be several labels."""
    for separator in LABEL_SEPARATORS:
        parts_of = {name: {part.strip() for part in name.split(separator)} for name in names if separator in name}
        counts = Counter(part for parts in parts_of.values() for part in parts)
        if found := [name for name, parts in parts_of.items() if any(counts[part] > 1 for part in parts)]:
            return found
    return []


def csv_folder(csv_file: str) -> str:
    """The folder of a table, below which its relative files lie by default."""
    return os.path.dirname(csv_file) or "."


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

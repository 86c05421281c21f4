"""The split of a data set into training, validation and test images."""

import difflib
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastpets.data import storage
from fastpets.data.dataset import NO_LABEL, PART_OF, ImageDataset, similar_names
from fastpets.data.hf_datasets import from_hf_parts, is_hf
from fastpets.data.labels import LABEL_PATTERN
from fastpets.data.parquet import from_parquet, is_parquet
from fastpets.data.random_splits import (
    fastai_split,
    fold_split,
    has_small_class,
    random_split,
    stratified_split,
)
from fastpets.data.shards import is_tar
from fastpets.data.sources import (
    as_dataset,
    common_folder,
    csv_folder,
    is_paths,
    label_folder,
    label_table,
    list_folder,
    open_table,
)
from fastpets.data.tables import Column, Table, is_table
from fastpets.errors import BadFileError, FastpetsError, InvalidArgumentError, first_few, warn
from fastpets.utils.system import resolve_num_workers
from fastpets.utils.validation import VALID_SHARE, LabelFrom, OnBadFile, Split, check_choice, check_split

PARTS = ("train", "valid", "test")


class Source(NamedTuple):
    """The listed images of a source, which are not yet labelled.

    Attributes:
        read: a function that labels some of the images, given their ids and where the labels are.
        parts: the parts that folders, or a table, define.
        folder: the local folder whose images these are, or None.
    """

    read: Callable[[np.ndarray, LabelFrom], ImageDataset]
    parts: "Parts"
    folder: str | None = None


class Parts(NamedTuple):
    """Ids of the images of each part of a data set, ascending.

    Attributes:
        train: training images.
        valid: validation images; None if they are to be chosen from `train`.
        test: images kept aside for a final evaluation.
    """

    train: np.ndarray
    valid: np.ndarray | None
    test: np.ndarray


def train_valid_datasets(
    source: Any,
    *,
    label_from: LabelFrom = "auto",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    split: Split = "auto",
    valid_share: float = VALID_SHARE,
    k_fold: tuple[int, int] | None = None,
    split_seed: int = 42,
    on_bad_file: OnBadFile = "raise",
    max_pixels: int | None = None,
    num_workers: int | None = None,
) -> tuple[ImageDataset, ImageDataset]:
    """The training and the validation images of a source, as `fastpets.loaders` describes them, with their headers.

    Labels are read of these images only, so that others add no class. The headers are scanned once, for both parts, by
    `num_workers` threads: None is the default of a Loader, 0 is one thread. With `labels`, a table, the source is the
    folder of its files or None. With `on_bad_file="raise"`, a BadFileError names all bad files of both parts, including
    images of more than `max_pixels`. Warns of classes with similar names. Raises FastpetsError for a class that only
    validation images have, and for `split`, `valid_share` or `k_fold` where folders or a table define the split.
    """
    check_split(split, valid_share, k_fold)
    read, parts, folder = _listed(source, labels, label_from, label_pattern)
    if parts.valid is None:
        dataset = read(parts.train, label_from)
        train_ids, valid_ids = _divided(dataset, folder, split, valid_share, k_fold, split_seed)
    else:
        given = {"split": split != "auto", "valid_share": valid_share != VALID_SHARE, "k_fold": k_fold is not None}
        for name in (name for name, is_given in given.items() if is_given):
            raise InvalidArgumentError(
                f"{name}: the source has validation images of its own, in a folder or a column; leave it out, or pass "
                "the training images alone"
            )
        used = np.sort(np.concatenate([parts.train, parts.valid]))
        dataset = read(used, label_from)
        train_ids, valid_ids = np.searchsorted(used, parts.train), np.searchsorted(used, parts.valid)
    if line := similar_names(dataset.classes):
        warn(line)
    _check_classes(dataset, train_ids, valid_ids, is_given=parts.valid is not None, split_seed=split_seed)
    dataset = dataset.scanned(resolve_num_workers(num_workers))
    train, valid = dataset.select(train_ids), dataset.select(valid_ids)
    if on_bad_file == "raise":
        _raise_bad_files((train, valid), max_pixels)
    return train, valid


def _divided(
    dataset: ImageDataset,
    folder: str | None,
    split: Split,
    valid_share: float,
    k_fold: tuple[int, int] | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the training and of the validation images of a data set that has no parts."""
    labels = dataset.labels
    if k_fold is not None:
        return fold_split(labels, seed, *k_fold)
    if split == "fastai":
        return fastai_split(dataset.paths, folder, seed, valid_share)
    if split == "stratified" or (split == "auto" and has_small_class(labels, valid_share)):
        return stratified_split(labels, seed, valid_share)
    return random_split(labels, seed, valid_share)


def held_out_dataset(
    source: Any,
    train: ImageDataset,
    *,
    label_from: LabelFrom = "auto",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    on_bad_file: OnBadFile = "raise",
    max_pixels: int | None = None,
    num_workers: int | None = None,
) -> ImageDataset:
    """The test images that `train_valid_datasets` keeps aside, with their headers and with the classes of `train`.

    Raises FastpetsError if there are none, or for one without a label or with another class.
    """
    read, parts, _ = _listed(source, labels, label_from, label_pattern)
    if len(parts.test) == 0:
        raise FastpetsError(
            "evaluate_test: no test images, expected a folder, or Parquet files or tar shards, named test beside those "
            "named train and valid, or rows with these values in the column split of a table"
        )
    test = read(parts.test, train.label_from if train.label_from in ("name", "folder") else label_from)  # type: ignore[arg-type]
    if len(unlabelled := np.flatnonzero(test.labels == NO_LABEL)):
        raise FastpetsError(
            f"evaluate_test: {test.paths[unlabelled[0]]} has no label ({len(unlabelled)} of {len(test)} test images "
            "are alike); expected one of the trained classes"
        )
    try:
        test = test.with_classes(train.classes)
    except FastpetsError as error:
        raise FastpetsError(f"evaluate_test: {error}") from None
    test = test.scanned(resolve_num_workers(num_workers))
    if on_bad_file == "raise":
        _raise_bad_files((test,), max_pixels)
    return test


def _listed(source: Any, labels: str | os.PathLike[str] | None, label_from: LabelFrom, label_pattern: str) -> Source:
    """Lists the images of a source."""
    check_choice("label_from", label_from, LabelFrom)
    is_path = isinstance(source, str | os.PathLike)
    if labels is not None and source is not None and not is_path:
        found = type(source).__name__
        raise InvalidArgumentError(f"source: {found}, expected None or the folder of the files that labels names")
    if is_path:
        source = storage.expanded(os.fspath(source))
    if labels is not None or is_table(source):
        csv_file = storage.expanded(os.fspath(source if labels is None else labels))
        folder = csv_folder(csv_file) if labels is None or source is None else source
        table = open_table(csv_file, folder, label_from if labels is None else "auto")
        if table.splits is None:
            parts = parts_of_folders(table.paths, os.fspath(folder))
        else:
            parts = parts_of_table(table, table.splits)
        return Source(lambda ids, _: label_table(table, ids), parts)
    if is_path and not (is_tar(source) or is_parquet(source)):
        images, links = list_folder(source)
        parts = parts_of_folders(images.paths, source)
        if links:
            parts = _without_repeated(parts, images, links)
        folder = None if storage.is_remote(source) else source
        return Source(lambda ids, how: label_folder(images.select(ids), source, how, label_pattern), parts, folder)
    if is_paths(source):
        images = as_dataset(source, label_from="none")
        parts = Parts(np.arange(len(images)), None, np.arange(0))
        folder = common_folder(images)
        return Source(lambda ids, how: label_folder(images.select(ids), folder, how, label_pattern), parts)
    if is_hf(source) and isinstance(source, dict):
        dataset, names = from_hf_parts(source, with_labels=label_from != "none")
        return Source(lambda ids, _: dataset.select(ids), parts_of_names(names, "source"))
    if is_path and is_parquet(source):
        dataset, files = from_parquet(source, with_labels=label_from != "none")
        return Source(lambda ids, _: dataset.select(ids), parts_of_files(files, source))
    dataset = as_dataset(source, label_from=label_from, label_pattern=label_pattern)
    if is_path and is_tar(source):
        shards = list(map(storage.container, dataset.paths))
        return Source(lambda ids, _: _with_used_classes(dataset.select(ids)), parts_of_files(shards, source))
    return Source(lambda ids, _: dataset.select(ids), Parts(np.arange(len(dataset)), None, np.arange(0)))


def _with_used_classes(dataset: ImageDataset) -> ImageDataset:
    """The data set without classes that have no images."""
    used = np.unique(dataset.labels[dataset.labels != NO_LABEL]).tolist()
    return dataset.with_classes([dataset.classes[label] for label in used])


def _without_repeated(parts: Parts, images: ImageDataset, links: set[str]) -> Parts:
    """The parts with each image once, although several symbolic links lead to it."""
    ids = np.sort(np.concatenate([part for part in parts if part is not None]))
    once = ids[~storage.repeated(images.select(ids).paths, links)]
    kept = Parts(*(None if part is None else np.intersect1d(part, once) for part in parts))  # type: ignore[arg-type]
    if kept.valid is not None and min(len(kept.train), len(kept.valid)) == 0:
        raise FastpetsError(f"{images.root}: links to the same images in train and valid, expected each image in one")
    return kept


def _raise_bad_files(datasets: Sequence[ImageDataset], max_pixels: int | None) -> None:
    """Raises a BadFileError that names all bad files, including images of more than `max_pixels`."""
    problems: dict[str, str] = {}
    for dataset in datasets:
        assert dataset.headers is not None
        problems |= (dataset.headers if max_pixels is None else dataset.headers.limited(max_pixels)).problems
    if problems:
        raise BadFileError(problems)


def _check_classes(
    dataset: ImageDataset, train_ids: np.ndarray, valid_ids: np.ndarray, *, is_given: bool, split_seed: int
) -> None:
    """Raises FastpetsError if there are classes without training images. `is_given`: by folders or a table."""
    train_labels, valid_labels = (np.unique(dataset.labels[ids]) for ids in (train_ids, valid_ids))
    untrained = np.setdiff1d(valid_labels, [*train_labels, NO_LABEL]).tolist()
    if untrained:
        trained = [dataset.classes[label] for label in train_labels if label != NO_LABEL]
        names = [dataset.classes[label] for label in untrained]
        similar = {name: difflib.get_close_matches(name, trained, n=1) for name in names}
        shown = first_few([f"{name} (is it {found[0]}?)" if found else name for name, found in similar.items()])
        remedy = "add some, rename the class, or leave its images out"
        if not is_given:
            remedy = f"add some, or choose another split (split='stratified', split_seed={split_seed + 1})"
        raise FastpetsError(
            f"classes with validation images only ({len(names)} of {len(dataset.classes)}): {shown}; expected training "
            f"images of each: {remedy}"
        )


def parts_of_folders(paths: Sequence[str], folder: str) -> Parts:
    """The parts that the first folders below `folder` stand for: see `parts_of_names`."""
    return parts_of_names(_top_folders(paths, folder), folder, "in none of the folders")


def parts_of_files(files: Sequence[str], where: str) -> Parts:
    """The parts that the name of each image's Parquet file or tar shard stands for: see `parts_of_names`.

    This is the first word in the file's name that is one, as in train-00000-of-00002.parquet and pets_test.tar. Where
    the files lie in several folders and a file's name has none, the folder's name counts, as in train/0000.parquet.
    """
    has_folders = len({posixpath.dirname(file) for file in files}) > 1
    part_of_file: dict[str, str] = {}
    for file in files:
        if file not in part_of_file:
            folder, name = posixpath.split(file)
            named = [name, posixpath.basename(folder)] if has_folders else [name]
            words = (word for text in named for word in re.split(r"[\W\d_]+", text.lower()))
            part_of_file[file] = next((word for word in words if word in PART_OF), "")
    return parts_of_names((part_of_file[file] for file in files), where, "in none of the files")


def parts_of_names(names: Iterable[str], where: str, outside: str = "in none of the data sets") -> Parts:
    """The parts that the name of each image's folder or data set stands for, those of PART_OF in lower case.

    Images in valid validate, or else those in test, or else some of the others. If there is a folder train, images in
    other folders are not used; if there is none, all images train but those in test. Warns if test validates, and of
    images that are not used.
    """
    code_of = {name: PARTS.index(part) for name, part in PART_OF.items()}
    codes = np.fromiter((code_of.get(name, len(PARTS)) for name in names), np.uint8)
    train, valid, test, other = (np.flatnonzero(codes == code) for code in range(len(PARTS) + 1))
    if len(train) == 0:
        used = np.flatnonzero(codes != PARTS.index("test"))
        return Parts(used, None, test) if len(used) else Parts(test, None, used)
    if len(other):
        warn(
            f"{where}: {len(other)} of {len(codes)} images are not used, since they are {outside} for training, "
            "validation and test"
        )
    parts = _with_validation(Parts(train, valid, test), where)
    return parts if len(valid) or len(test) else Parts(train, None, test)


def parts_of_table(table: Table, splits: Column) -> Parts:
    """The parts in the column of splits. Warns if test validates. Raises FastpetsError without train and another."""
    codes, names, title = splits
    parts = Parts(
        *(np.flatnonzero(np.isin(codes, [i for i, name in enumerate(names) if name == part])) for part in PARTS)
    )
    parts = _with_validation(parts, table.path)
    if len(parts.train) == 0 or parts.valid is None or len(parts.valid) == 0:
        found = ", ".join(sorted(set(names)))
        raise FastpetsError(f"{table.path}: {title}: found {found}, expected train and one of valid and test")
    return parts


def _with_validation(parts: Parts, where: str) -> Parts:
    """The parts, with the test images for validation, and a warning, if there are no others."""
    if parts.valid is None or len(parts.valid) or not len(parts.test):
        return parts
    warn(
        f"{where}: the {len(parts.test)} test images validate, since there are no validation images; to keep test "
        "images for a final evaluation, add a part named valid"
    )
    return Parts(parts.train, parts.test, parts.valid)


def _top_folders(paths: Sequence[str], folder: str) -> Iterator[str]:
    """For each path, its first folder below `folder` in lower case; "" if it lies in `folder` itself."""
    prefix = os.path.join(storage.normalized(folder), "")
    for path in paths:
        below = path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, prefix)
        top, slash, _ = below.partition("/")
        yield top.lower() if slash else ""

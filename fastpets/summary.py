"""`fastpets summary`: describes a data set, traces one image through the loader, and warns of data-quality problems."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from tyro.conf import Positional, arg

from fastpets.errors import FastpetsError, one_line
from fastpets.runs.config import TrainConfig

if TYPE_CHECKING:
    from fastpets.data.dataset import ImageDataset
    from fastpets.loading.loader import Loader

MAX_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class SummaryConfig(TrainConfig):
    """Describe a data set, trace one image through the loader, and warn of data-quality problems.

    Takes the flags of `fastpets train`.
    """

    data: Annotated[Positional[str | None], arg(metavar="DIR")] = None
    """Folder of images (s3:// too), tar shards, a CSV, or `sample`, a small drawn set. Default: Oxford-IIIT Pet."""
    image: str | None = None
    """Part of the path of the training image to trace. Default: the first one."""
    out: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """Also draw the traced image and the sample that is cut out of it."""


def summary(config: SummaryConfig) -> int:
    """Prints the summary. Raises FastpetsError, with the name of the stage, if a stage fails."""
    from fastpets.__main__ import with_flags
    from fastpets.analysis import data_quality
    from fastpets.analysis.trace import stage, trace
    from fastpets.runs import build

    with stage("files to data sets"):
        datasets = build.build_datasets(config)
    with stage("image headers"):
        train, valid = build.build_loaders(config, *datasets, config.preprocessing(), "cpu")
    for line in describe(train, valid):
        print(line)
    item = find_item(config.image, train.dataset, train.headers.usable)
    print("\nTrace of one training image:", end=" ")
    for line in trace(train, item, label_origin(config, train.dataset, item), config.out):
        print(line)
    warnings = [with_flags(line, SummaryConfig) for line in data_quality.find_warnings(train, valid)]
    print("\nData-quality warnings" if warnings else "\nNo data-quality warnings")
    for line in warnings:
        print(f"  {one_line(line)}")
    return 0


def describe(train: Loader, valid: Loader) -> Iterator[str]:
    """Yields lines about images, formats, sizes, files that are not used, and classes."""
    from fastpets.data.headers import PILLOW

    both = (train, valid)
    num_train, num_valid = (int(loader.headers.usable.sum()) for loader in both)
    yield f"Data set in {one_line(train.dataset.root)}"
    yield f"  {num_train + num_valid} images: {num_train} for training, {num_valid} for validation"
    suffixes = Counter(Path(path).suffix.lower() for loader in both for path in loader.dataset.paths)
    yield f"  suffixes: {', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common())}"
    if num_pillow := sum(int((loader.headers.decoders == PILLOW).sum()) for loader in both):
        yield f"  {num_pillow} are decoded by Pillow, the others by DALI"
    for name in ("heights", "widths"):
        values = np.concatenate([getattr(loader.headers, name)[loader.headers.usable] for loader in both])
        yield f"  {name}: {values.min()} to {values.max()} px, median {np.median(values):.0f}"
    if ignored := train.dataset.ignored_files:
        yield f"  ignored files without an image's suffix: {len(ignored)}, such as {one_line(ignored[0])}"
    for path, problem in list((train.bad_files | valid.bad_files).items())[:MAX_LISTED]:
        yield f"  bad file: {one_line(path)}: {problem}"
    yield f"  {len(train.classes)} classes, with their numbers of training and validation images:"
    yield from class_counts(train.classes, *(loader.dataset.labels[loader.headers.usable] for loader in both))


def class_counts(classes: tuple[str, ...], train_labels: np.ndarray, valid_labels: np.ndarray) -> Iterator[str]:
    """Yields a line for each of the largest and the smallest classes."""
    num_train, num_valid = (np.bincount(labels, minlength=len(classes)) for labels in (train_labels, valid_labels))
    order = np.argsort(-num_train, kind="stable").tolist()
    width = max(len(one_line(name)) for name in classes)
    for place, label in enumerate(order):
        if place < MAX_LISTED or place >= len(order) - MAX_LISTED:
            yield f"    {one_line(classes[label]):<{width}} {num_train[label]:>6} {num_valid[label]:>6}"
        elif place == MAX_LISTED:
            yield f"    ... {len(order) - 2 * MAX_LISTED} more"


def find_item(image: str | None, dataset: ImageDataset, usable: np.ndarray) -> int:
    """The id of the first usable item (N,) whose path contains `image`, or of the first one for None."""
    ids = np.flatnonzero(usable).tolist()
    for i in ids:
        if image is None or image in dataset.paths[i]:
            return i
    raise FastpetsError(f"image: {image!r} is in no path of the {len(ids)} training images")


def label_origin(config: TrainConfig, dataset: ImageDataset, i: int) -> str:
    """Where the label of item `i` comes from."""
    from fastpets.data.storage import name_of

    path = dataset.paths[i]
    if dataset.label_from == "table":
        return f"column label of {config.labels or config.data}"
    if dataset.label_from == "shard":
        return "the .cls file beside the image in its shard"
    if dataset.label_from == "folder":
        return f"the folder {Path(path).parent.name!r}"
    return f"the pattern {config.label_pattern} on {name_of(path)!r}"


if __name__ == "__main__":
    from fastpets.__main__ import main

    sys.exit(main(["summary", *sys.argv[1:]]))

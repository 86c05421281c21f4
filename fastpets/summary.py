"""`fastpets summary`: describes a data set, traces one image through the loader, and warns of data-quality problems."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from tyro.conf import arg

from fastpets.errors import BadFileError, FastpetsError, counted, describe_bad_files, first_few, one_line
from fastpets.flags import with_flags
from fastpets.runs.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from fastpets.data.dataset import ImageDataset

MAX_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class SummaryConfig(DataConfig):
    """Describe a data set, trace one image through the loader, and warn of data-quality problems."""

    image: Annotated[str | None, arg(metavar="TEXT")] = None
    """Part of the path of the training image to trace. Default: the first image."""
    out: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """Also draw the traced image and the model's input that is cut out of it."""


def summary(config: SummaryConfig) -> int:
    """Prints the summary. Raises FastpetsError, with the name of the stage, if a stage fails."""
    from fastpets.analysis import data_quality
    from fastpets.analysis.trace import stage
    from fastpets.runs.build import build_datasets

    with stage("files to data sets"):
        train, valid = build_datasets(dataclasses.replace(config, on_bad_file="skip"))
    with stage("image headers"):
        (usable_train, problems), (usable_valid, valid_problems) = (
            dataset.usable(config.max_pixels) for dataset in (train, valid)
        )
        if config.on_bad_file == "raise" and (bad := problems | valid_problems):
            raise BadFileError(bad)
        if len(usable_train) == 0:
            raise FastpetsError(f"no training image is left: {describe_bad_files(problems)}")
    for line in describe(usable_train, usable_valid, problems | valid_problems):
        print(line)
    print()
    for line in trace_one(config, train, find_items(config.image, train, problems)):
        print(line)
    # The warnings suggest flags of `fastpets train`.
    found = data_quality.find_warnings(usable_train, usable_valid, config.num_workers)
    warnings = [with_flags(line, TrainConfig) for line in found]
    print("\nData-quality warnings" if warnings else "\nNo data-quality warnings")
    for line in warnings:
        print(f"  {one_line(line)}")
    return 0


def describe(train: ImageDataset, valid: ImageDataset, problems: dict[str, str]) -> Iterator[str]:
    """Yields lines about images, formats, sizes, files that are not used, and classes.

    The data sets have the usable images. `problems` says what is wrong with each of the others, by its path.
    """
    from fastpets.data.headers import DEEP, PILLOW

    assert train.headers is not None
    assert valid.headers is not None
    headers = (train.headers, valid.headers)
    yield f"Data set in {one_line(train.root)}"
    yield f"  {counted(len(train) + len(valid), 'image')}: {len(train)} for training, {len(valid)} for validation"
    suffixes = Counter(Path(path).suffix.lower() for paths in (train.paths, valid.paths, problems) for path in paths)
    yield f"  suffixes: {', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common())}"
    if num_pillow := sum(int(np.isin(part.decoders, (PILLOW, DEEP)).sum()) for part in headers):
        yield f"  {num_pillow} have a format that only Pillow decodes"
    for name in ("heights", "widths"):
        values = np.concatenate([getattr(part, name) for part in headers])
        yield f"  {name}: {values.min()} to {values.max()} px, median {np.median(values):.0f}"
    if ignored := train.ignored_files:
        yield f"  ignored files without an image's suffix: {len(ignored)}, such as {one_line(ignored[0])}"
    for path, problem in list(problems.items())[:MAX_LISTED]:
        yield f"  bad file: {one_line(path)}: {problem}"
    if len(problems) > MAX_LISTED:
        yield f"  bad files: {len(problems) - MAX_LISTED} more; `fastpets check` lists all"
    yield from class_counts(train.classes, train.labels, valid.labels)


def class_counts(classes: tuple[str, ...], train_labels: np.ndarray, valid_labels: np.ndarray) -> Iterator[str]:
    """Yields their number, a line for each of the largest and the smallest classes, and the classes without images."""
    from fastpets.data.dataset import count_labels

    num_train, num_valid = (count_labels(labels, len(classes)) for labels in (train_labels, valid_labels))
    has_images = num_train + num_valid > 0
    order = [label for label in np.argsort(-num_train, kind="stable").tolist() if has_images[label]]
    yield f"  {counted(len(order), 'class')}, with the numbers of training and validation images:"
    width = max((len(one_line(classes[label])) for label in order), default=0)
    for place, label in enumerate(order):
        if place < MAX_LISTED or place >= len(order) - MAX_LISTED:
            yield f"    {one_line(classes[label]):<{width}} {num_train[label]:>6} {num_valid[label]:>6}"
        elif place == MAX_LISTED:
            yield f"    ... {len(order) - 2 * MAX_LISTED} more"
    if without := [one_line(classes[label]) for label in np.flatnonzero(~has_images).tolist()]:
        yield f"  classes none of whose files can be used ({len(without)}): {first_few(without)}"


def find_items(image: str | None, dataset: ImageDataset, problems: dict[str, str]) -> list[int]:
    """The ids of the first usable images whose path contains `image`, at most MAX_LISTED."""
    paths = enumerate(dataset.paths)
    found = (i for i, path in paths if path not in problems and (image is None or image in path))
    if items := list(itertools.islice(found, MAX_LISTED)):
        return items
    raise FastpetsError(
        f"image: {image!r} is in no path of the {counted(len(dataset) - len(problems), 'training image')}"
    )


def trace_one(config: SummaryConfig, dataset: ImageDataset, items: Sequence[int]) -> Iterator[str]:
    """Yields the trace of the first of `items` that decodes, after a line for each before it.

    Raises FastpetsError, with the name of the stage, if none decodes, or if the first one does not with
    `on_bad_file="raise"`.
    """
    from fastpets.analysis.trace import StageError, trace
    from fastpets.augment.policy import as_policy

    augment = as_policy(config.augment)
    for item in items:
        origin = label_origin(config, dataset, item)
        try:
            lines = list(trace(dataset, item, config.preprocessing(), augment, config.seed, origin, config.out))
        except StageError as error:
            if config.on_bad_file == "raise" or item == items[-1]:
                raise
            yield f"Not traced, {error}"
        else:
            yield f"Trace of one training image: {lines[0]}"
            yield from lines[1:]
            return


def label_origin(config: DataConfig, dataset: ImageDataset, i: int) -> str:
    """The place that the label of item `i` was read from, in words."""
    from fastpets.data.storage import name_of

    path = dataset.paths[i]
    if dataset.label_from == "table":
        return f"the column of labels in {config.labels or config.data}"
    if dataset.label_from == "shard":
        return "the .cls or .json file beside the image in its shard"
    if dataset.label_from == "folder":
        return f"the folder {Path(path).parent.name!r}"
    return f"the pattern {config.label_pattern} on {name_of(path)!r}"


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["summary", *sys.argv[1:]]))

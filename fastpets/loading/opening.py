"""From one source of images to two loaders, one for training and one for validation."""

import os
from typing import Any

from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import MAX_PIXELS
from fastpets.data.dataset import ImageDataset
from fastpets.data.headers import scan
from fastpets.data.sources import LABEL_PATTERN, as_dataset, from_csv
from fastpets.data.splits import split, split_by_names
from fastpets.errors import BadFileError, FastpetsError
from fastpets.loading.loader import Loader
from fastpets.utils.system import num_processors
from fastpets.utils.validation import LabelFrom, OnBadFile


def loaders(
    source: Any,
    *,
    label_from: LabelFrom = "name",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    split_seed: int = 42,
    augment: bool | str | Augment = True,
    on_bad_file: OnBadFile = "raise",
    max_pixels: int = MAX_PIXELS,
    **settings: Any,
) -> tuple[Loader, Loader]:
    """A training and a validation loader for a folder of images: `train, valid = fastpets.loaders("images/")`.

    `source` is what a Loader's may be. Labels come from the file names by `label_pattern`, from the `folder` each lies
    in, or from the CSV `labels` (columns file and label); the split from folders named train and valid, val or test,
    the CSV's column `split`, or a random fifth by `split_seed`. The other `settings` are Loader's, for both.
    """
    train_dataset, valid_dataset = open_datasets(
        source,
        label_from=label_from,
        label_pattern=label_pattern,
        labels=labels,
        split_seed=split_seed,
        on_bad_file=on_bad_file,
        max_pixels=max_pixels,
    )
    settings |= {"on_bad_file": on_bad_file, "max_pixels": max_pixels}
    return Loader(train_dataset, augment=augment, **settings), Loader(valid_dataset, augment=False, **settings)


def open_datasets(
    source: Any,
    *,
    label_from: LabelFrom = "name",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    split_seed: int = 42,
    on_bad_file: OnBadFile = "raise",
    max_pixels: int = MAX_PIXELS,
) -> tuple[ImageDataset, ImageDataset]:
    """Training and validation items, as `fastpets.loaders` describes them; with `labels`, `source` may be None.

    All bad files of both are in the error, if any. Raises FastpetsError for classes that are only validated.
    """
    names: list[str] = []
    if labels is not None:
        dataset, names = from_csv(labels, source)
    else:
        dataset = as_dataset(source, label_from=label_from, label_pattern=label_pattern)
    folder = source if isinstance(source, str | os.PathLike) else None
    both = split_by_names(dataset, names) if any(names) else split(dataset, folder=folder, seed=split_seed)
    untrained = sorted(set(both[1].labels.tolist()) - set(both[0].labels.tolist()))
    if untrained:
        shown = ", ".join(dataset.classes[label] for label in untrained[:5]) + ", ..." * (len(untrained) > 5)
        raise FastpetsError(
            f"{len(untrained)} of {len(dataset.classes)} classes are in validation alone: {shown}; expected each in "
            "training too: add images, or choose another split (--split-seed, folders, or the CSV's column split)"
        )
    if on_bad_file == "raise":
        problems: dict[str, str] = {}
        for part in both:
            problems |= scan(part, num_processors(), max_pixels).problems
        if problems:
            raise BadFileError(problems)
    return both

"""From one source of images to two loaders, one for training and one for validation."""

import os
from typing import Any

from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import MAX_PIXELS
from fastpets.data.sources import LABEL_PATTERN
from fastpets.data.splits import train_valid_datasets
from fastpets.loading.loader import Loader
from fastpets.utils.validation import LabelFrom, OnBadFile


def loaders(
    source: Any,
    *,
    label_from: LabelFrom = "auto",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    split_seed: int = 42,
    augment: bool | str | Augment = True,
    on_bad_file: OnBadFile = "raise",
    max_pixels: int = MAX_PIXELS,
    **settings: Any,
) -> tuple[Loader, Loader]:
    """A training and a validation loader: `train, valid = fastpets.loaders("images/")`.

    `source` is what a Loader's may be. Labels come from the file names by `label_pattern`, from the `folder` each lies
    in, or from the CSV `labels` (columns file and label); the split from folders named train and valid, val or test,
    the CSV's column `split`, or a random fifth by `split_seed`. The other `settings` are Loader's, for both.
    """
    train_dataset, valid_dataset = train_valid_datasets(
        source,
        label_from=label_from,
        label_pattern=label_pattern,
        labels=labels,
        split_seed=split_seed,
        on_bad_file=on_bad_file,
        max_pixels=max_pixels,
        num_workers=settings.get("num_workers"),
    )
    settings |= {"on_bad_file": on_bad_file, "max_pixels": max_pixels}
    return Loader(train_dataset, augment=augment, **settings), Loader(valid_dataset, augment=False, **settings)

"""`loaders`: the training and the validation Loader of a source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import MAX_PIXELS
from fastpets.data.sources import LABEL_PATTERN
from fastpets.data.splits import train_valid_datasets
from fastpets.loading.loader import Loader
from fastpets.utils.validation import (
    VALID_SHARE,
    Borders,
    CacheWhere,
    Decode,
    DecoderName,
    LabelFrom,
    Layout,
    OnBadFile,
    Output,
    PresizeMethod,
    Split,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LoaderSettings(TypedDict, total=False):
    """The arguments of a Loader that `loaders` passes to both, for type checkers and editors."""

    size: int | tuple[int, int]
    presize: int | None
    presize_method: PresizeMethod
    borders: Borders
    supersample: int
    rank: int | None
    world_size: int | None
    seed: int
    device: str | torch.device
    output: Output
    dtype: torch.dtype | str
    layout: Layout
    mean: Sequence[float] | None
    std: Sequence[float] | None
    batch_transform: Callable[[torch.Tensor, torch.Tensor], Any] | None
    decoder: DecoderName
    decode: Decode
    hw_decoder_load: float
    cache: CacheWhere
    cache_dir: str | os.PathLike[str] | None
    cache_gb: float | None


def loaders(
    source: Any,
    batch_size: int = 64,
    *,
    label_from: LabelFrom = "auto",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    split: Split = "auto",
    valid_share: float = VALID_SHARE,
    k_fold: tuple[int, int] | None = None,
    split_seed: int = 42,
    augment: bool | str | Augment = True,
    shuffle: bool | None = None,
    sampler: Iterable[int] | str | None = None,
    drop_last: bool | None = None,
    valid_size: int | tuple[int, int] | None = None,
    on_bad_file: OnBadFile = "raise",
    max_pixels: int = MAX_PIXELS,
    num_workers: int | None = None,
    **settings: Unpack[LoaderSettings],
) -> tuple[Loader, Loader]:
    """Returns a training and a validation Loader: `train, valid = fastpets.loaders("photos/")`.

    Args:
        source: as of a Loader. A dict of data sets of Hugging Face, and Parquet files or tar shards with names such as
            train-* or test/*, are the split. A list of paths is labelled as a folder.
        label_from: as of a Loader.
        label_pattern: regular expression on the file name whose first group is the label.
        labels: table with the columns file, label and optionally split or is_valid, instead of `label_from`; its
            relative files are below `source`.
        split: how validation images are chosen where neither the table nor folders named train and valid say which:
            "random"; "stratified", the share of each class, with at least one image in both parts if it has two;
            "fastai", those of its RandomSplitter(valid_share, split_seed); or "auto", "stratified" if a class would
            have fewer than 5 validation images on average, else "random". Images in folders named test, beside these,
            are kept aside.
        valid_share: share of the images that validate.
        k_fold: (i, k): instead of a share, fold i (from 0) of k stratified ones validates.
        split_seed: of this choice.
        augment, shuffle, sampler, drop_last: of the training Loader only.
        valid_size: size of the validation images. Default: `size`. As training crops and enlarges images, objects look
            larger there; a size 1.15 to 1.3 times as large makes up for it (H. Touvron et al., "Fixing the train-test
            resolution discrepancy", NeurIPS 2019).
        on_bad_file, max_pixels, num_workers, settings: as of a Loader, for both.
    """
    datasets = train_valid_datasets(
        source,
        label_from=label_from,
        label_pattern=label_pattern,
        labels=labels,
        split=split,
        valid_share=valid_share,
        k_fold=k_fold,
        split_seed=split_seed,
        on_bad_file=on_bad_file,
        max_pixels=max_pixels,
        num_workers=num_workers,
    )
    both = {"on_bad_file": on_bad_file, "max_pixels": max_pixels, "num_workers": num_workers, **settings}
    order = {"shuffle": shuffle, "sampler": sampler, "drop_last": drop_last}
    train = Loader(datasets[0], batch_size, augment=augment, **order, **both)  # type: ignore[arg-type]
    if valid_size is not None:
        both["size"] = valid_size
    return train, Loader(datasets[1], batch_size, **both)  # type: ignore[arg-type]

"""The loader: one iterable that turns items into batches on a device, by everything that the other modules do."""

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from fastpets import order
from fastpets.batch import Batch
from fastpets.buffers import Buffers
from fastpets.cache import make_cache
from fastpets.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LABEL_PATTERN,
    Augment,
    Borders,
    CacheWhere,
    LabelFrom,
    OnBadFile,
    Output,
    PresizeMethod,
)
from fastpets.epoch import Epoch
from fastpets.errors import BadFileError, FastpetsError, describe_bad_files
from fastpets.geometry import shrink_factors
from fastpets.items import Items, from_csv, from_folder, split, split_by_names
from fastpets.manifest import Manifest, scan
from fastpets.pipelines import Stream
from fastpets.replay import Replay
from fastpets.settings import check_numbers, check_words, resolve_augment, resolve_device, resolve_dtype
from fastpets.system import num_processors


class Loader:
    """Batches of decoded, warped and normalised pictures, in place of a torch DataLoader.

    `for images, labels in loader:` runs one epoch, as often as wanted: each `iter()` begins the next epoch, whose
    order and draws depend on (seed, epoch, item id) alone; leaving a loop in its middle costs and loses nothing.

    Args:
        items: what to load; see `fastpets.items`.
        batch_size: pictures a batch; the last one may be shorter.
        size: of the output in pixels: the side of a square, or (height, width).
        augment: True (fastai's), an `Augment` or the name of one ("fastai", "trivial-geometric") makes this a loader
            for training; False takes the middle of each picture as it is.
        presize: shorter side in pixels to which larger pictures are shrunk when they are decoded, by default 4 times
            the output's. Pictures are never enlarged, and what is up to that large is sampled as it was decoded.
        presize_method: what is kept of a picture in other proportions than the output's: "crop", the largest part
            that fits; or all of it, by "squish", out of proportion, or "pad", with what is beyond its `borders`.
        borders: what is beyond a picture's edges: "reflect", its mirror image; "border", the colour of its border;
            "zeros", black.
        supersample: 2 takes four samples where 1 takes one: truer and slower.
        shuffle, drop_last: as of a DataLoader; by default, what `augment` is. A dropped batch is never the only one.
        seed: of the order and of all draws, from 0.
        num_workers: threads that read and decode, by default all processors that this process may use.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".
        output: "float" for normalised images of type `dtype`, or "uint8" for 0-255, to transform further.
        dtype: float32, float16 or bfloat16.
        mean, std: of the normalisation, a value a channel on a scale from 0 to 1.
        cache: keep decoded pictures from the first epoch on, in the memory of the "host" or of the "device": what
            fits in half of what is free there. "auto" does so where all pictures fit, the device first.
        on_bad_file: "raise" BadFileError for a picture that cannot be used, at once where its header shows it and
            else when its turn comes; or "skip" it, with a warning. `bad_files` maps each one met to its problem.
    """

    def __init__(
        self,
        items: Items,
        *,
        batch_size: int = 64,
        size: int | tuple[int, int] = 224,
        augment: bool | str | Augment = False,
        presize: int | None = None,
        presize_method: PresizeMethod = "crop",
        borders: Borders = "reflect",
        supersample: int = 1,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        seed: int = 0,
        num_workers: int | None = None,
        device: str | torch.device = "auto",
        output: Output = "float",
        dtype: torch.dtype = torch.float32,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        cache: CacheWhere = "none",
        on_bad_file: OnBadFile = "raise",
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        check_numbers(batch_size=batch_size, size=min(self.size), presize=presize, supersample=supersample)
        check_words(presize_method=presize_method, borders=borders, output=output, cache=cache)
        self.batch_size, self.borders, self.supersample = batch_size, borders, supersample
        self.presize, self.presize_method = presize, presize_method
        self.augment = resolve_augment(augment)
        self.shuffle = self.augment is not None if shuffle is None else shuffle
        self.drop_last = self.augment is not None if drop_last is None else drop_last
        self.seed, self.epoch, self.num_workers = seed, 0, num_workers or num_processors()
        self.device, self.dtype = resolve_device(device), resolve_dtype(output, dtype)
        self.output, self.mean, self.std = output, tuple(mean), tuple(std)
        self.on_bad_file = on_bad_file
        self.bad_files: dict[str, str] = {}
        self.items, self.manifest = self._usable(items)
        self.cache, self.buffers = make_cache(cache, self._sizes(), self.device), Buffers(self.device)
        self.streams: list[Stream] = []  # idle, for the next epoch

    def _usable(self, items: Items) -> tuple[Items, Manifest]:
        """The items whose headers say that they are pictures, and the headers' facts; the others are reported."""
        manifest = scan(items, self.num_workers)
        if manifest.problems:
            self.report_bad_files(manifest.problems)
        if len(manifest.usable) == 0:
            raise FastpetsError(f"no picture to load: {len(items)} items, of which {len(self.bad_files)} are bad files")
        return items.select(manifest.usable), manifest.select_usable()

    def _sizes(self) -> np.ndarray:
        """Height and width (N, 2) of the pictures once they are shrunk."""
        sides = self.manifest.heights, self.manifest.widths
        return np.stack(sides, axis=-1) // shrink_factors(*sides, self.size, self.presize, self.presize_method)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that the labels index."""
        return self.items.classes

    def __len__(self) -> int:
        """Batches in an epoch."""
        return order.num_batches(len(self.items), self.batch_size, drop_last=self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Makes `epoch` the one that the next `iter()` begins."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        ids = order.epoch_order(len(self.items), shuffle=self.shuffle, seed=self.seed, epoch=self.epoch)
        batches = order.batches(ids, self.batch_size, drop_last=self.drop_last)
        epoch = Epoch(self, self.epoch, batches)
        self.epoch += 1
        return self._deliver(epoch)

    def _deliver(self, epoch: Epoch) -> Iterator[Batch]:
        with epoch:
            for images, ids in epoch:
                labels = torch.from_numpy(self.items.labels[ids]).to(self.device, non_blocking=True)
                yield Batch(images, labels, ids)

    def replay(self, num_batches: int) -> Replay:
        """The next epoch's first batches kept in memory, to stand in for this loader: what if loading cost nothing?"""
        return Replay(self, num_batches)

    def report_bad_files(self, problems: dict[str, str]) -> None:
        """Notes files that cannot be used, and raises BadFileError or warns, as `on_bad_file` says."""
        self.bad_files.update(problems)
        if self.on_bad_file == "raise":
            raise BadFileError(problems)
        warnings.warn(f"left out {describe_bad_files(problems)}", stacklevel=2)


def loaders(
    folder: str | os.PathLike[str],
    *,
    label_from: LabelFrom = "name",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    split_seed: int = 42,
    augment: bool | str | Augment = True,
    on_bad_file: OnBadFile = "raise",
    **settings: Any,
) -> tuple[Loader, Loader]:
    """A training and a validation loader for a folder of pictures: `train, valid = fastpets.loaders("images/")`.

    Labels come from the file names by `label_pattern`, from the `folder` each lies in, or from the CSV `labels`
    (columns file and label); the split from folders named train and valid, val or test, the CSV's column `split`,
    or a random fifth by `split_seed`. The other `settings` are Loader's, for both.
    """
    train_items, valid_items = open_items(
        folder,
        label_from=label_from,
        label_pattern=label_pattern,
        labels=labels,
        split_seed=split_seed,
        on_bad_file=on_bad_file,
    )
    settings["on_bad_file"] = on_bad_file
    return Loader(train_items, augment=augment, **settings), Loader(valid_items, augment=False, **settings)


def open_items(
    folder: str | os.PathLike[str] | None,
    *,
    label_from: LabelFrom = "name",
    label_pattern: str = LABEL_PATTERN,
    labels: str | os.PathLike[str] | None = None,
    split_seed: int = 42,
    on_bad_file: OnBadFile = "raise",
) -> tuple[Items, Items]:
    """Training and validation items, as `loaders` describes them; all bad files of both are in the error, if any."""
    if labels is not None:
        items, names = from_csv(labels, folder)
    else:
        assert folder is not None
        items, names = from_folder(folder, label_from=label_from, label_pattern=label_pattern), []
    both = split_by_names(items, names) if any(names) else split(items, folder=folder, seed=split_seed)
    if on_bad_file == "raise":
        problems = {path: problem for part in both for path, problem in scan(part, num_processors()).problems.items()}
        if problems:
            raise BadFileError(problems)
    return both

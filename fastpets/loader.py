"""The loader: one iterable that turns items into batches on a device, by everything that the other modules do."""

import os
import warnings
from collections import namedtuple
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from fastpets import order
from fastpets.config import IMAGENET_MEAN, IMAGENET_STD, LABEL_PATTERN, Augment, LabelFrom, OnBadFile
from fastpets.epoch import Epoch
from fastpets.errors import BadFileError, FastpetsError, describe_bad_files
from fastpets.items import Items, from_csv, from_folder, split, split_by_names
from fastpets.manifest import scan
from fastpets.system import num_processors


class Batch(namedtuple("Batch", ("images", "labels"))):
    """A pair (images, labels), with the item ids of its pictures as an attribute.

    images (B, 3, S, S) in channels_last layout and labels (B,) int64, both on the loader's device; ids (B,) int64
    NumPy. Libraries rebuild tuples as `Batch(images, labels)` or `Batch(pair)`; ids is None after that.
    """

    ids: np.ndarray | None = None

    def __new__(cls, images: Any, labels: Any = None, ids: np.ndarray | None = None) -> "Batch":
        pair = tuple(images) if labels is None else (images, labels)
        batch = super().__new__(cls, *pair)
        batch.ids = ids
        return batch


class Loader:
    """Batches of decoded, warped and normalised pictures, in place of a torch DataLoader.

    `for images, labels in loader:` runs one epoch, as often as wanted: each `iter()` begins the next epoch, whose
    order and draws depend on (seed, epoch, item id) alone; leaving a loop in its middle costs and loses nothing.

    Args:
        items: what to load; see `fastpets.items`.
        batch_size: pictures a batch; the last one may be shorter.
        size: side S of the output in pixels.
        augment: True, or an `Augment`, makes this a loader for training; False takes the centre square as it is.
        presize: side of the square that crops are taken from; larger pictures are shrunk towards it first.
        shuffle, drop_last: as of a DataLoader; by default, what `augment` is. A dropped batch is never the only one.
        seed: of the order and of all draws, from 0.
        num_workers: threads that read and decode, by default all processors that this process may use.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".
        dtype: floating type of the images.
        mean, std: of the normalisation, a value a channel on a scale from 0 to 1.
        on_bad_file: "raise" BadFileError for a picture that cannot be used, at once where its header shows it and
            else when its turn comes; or "skip" it, with a warning. `bad_files` maps each one met to its problem.
    """

    def __init__(
        self,
        items: Items,
        *,
        batch_size: int = 64,
        size: int = 224,
        augment: bool | Augment = False,
        presize: int = 460,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        seed: int = 0,
        num_workers: int | None = None,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        on_bad_file: OnBadFile = "raise",
    ) -> None:
        for name, value in (("batch_size", batch_size), ("size", size), ("presize", presize)):
            if value < 1:
                raise FastpetsError(f"{name}: {value}, expected at least 1")
        self.batch_size, self.size, self.presize = batch_size, size, presize
        self.augment = (Augment() if augment else None) if isinstance(augment, bool) else augment
        self.shuffle = self.augment is not None if shuffle is None else shuffle
        self.drop_last = self.augment is not None if drop_last is None else drop_last
        self.seed, self.epoch = seed, 0
        self.num_workers = num_workers or num_processors()
        self.device = resolve_device(device)
        self.dtype, self.mean, self.std = dtype, tuple(mean), tuple(std)
        self.on_bad_file = on_bad_file
        self.bad_files: dict[str, str] = {}
        self.items, self.manifest = items, scan(items, self.num_workers)
        if self.manifest.problems:
            self.report_bad_files(self.manifest.problems)
            self.items, self.manifest = items.select(self.manifest.usable), self.manifest.select_usable()
        if len(self.items) == 0:
            raise FastpetsError(f"no picture to load: {len(items)} items, of which {len(self.bad_files)} are bad files")

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
    augment: bool | Augment = True,
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


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that a name stands for. Raises FastpetsError if it is a GPU that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise FastpetsError(f"device {device}: torch sees no GPU; use --device cpu, or mend the driver")
        device = torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
        if device.index >= torch.cuda.device_count():
            raise FastpetsError(f"device {device}: torch sees {torch.cuda.device_count()} GPUs, counted from 0")
    return device

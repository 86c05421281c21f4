"""The loader: one iterable that turns items into batches on a device, by everything that the other modules do."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastpets import kernels
from fastpets.augment.geometry import shrunk_sizes
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD, MAX_PIXELS, Preprocessing
from fastpets.data.headers import ImageHeaders
from fastpets.data.sources import as_dataset
from fastpets.errors import BadFileError, FastpetsError, describe_bad_files
from fastpets.loading import settings
from fastpets.loading.batch import Batch
from fastpets.loading.buffers import Buffers
from fastpets.loading.cache import make_cache
from fastpets.loading.display import batch_grid
from fastpets.loading.epoch import Epoch
from fastpets.loading.position import Position, resolve_sampler
from fastpets.pipelines import Stream
from fastpets.utils import validation
from fastpets.utils.system import num_processors
from fastpets.utils.validation import CacheWhere, LabelFrom, OnBadFile, check_choice


class Loader:
    """Batches of decoded, warped and normalised images, in place of a torch DataLoader.

    `for images, labels in loader:` runs one epoch, as often as wanted: each pass is the next epoch, whose
    order and draws depend on (seed, epoch, item id) alone; leaving a loop in its middle costs and loses nothing.

    Args:
        source: what to load: a folder, a CSV with the columns file and label, ImageDataset, a list of paths or of (path,
            label), or a torchvision data set of files, such as an ImageFolder.
        batch_size: images a batch; the last one may be shorter.
        size: of the output in pixels: the side of a square, or (height, width).
        augment: True (fastai's), an `Augment` or the name of one ("fastai", "trivial-geometric") makes this a loader
            for training; False takes the middle of each image as it is.
        presize: shorter side in pixels to which larger images are shrunk when they are decoded, by default 4 times
            the output's. Images are never enlarged, and what is up to that large is sampled as it was decoded.
        presize_method: what is kept of an image in other proportions than the output's: "crop", the largest part
            that fits; or all of it, by "squish", out of proportion, or "pad", with what is beyond its `borders`.
        borders: what is beyond an image's edges: "reflect", its mirror image; "border", the colour of its border;
            "zeros", black.
        supersample: 2 takes four samples where 1 takes one: truer and slower.
        shuffle, drop_last: as of a DataLoader; by default, what `augment` is. A dropped batch is never the only one.
        sampler: a torch sampler of item ids, in place of `shuffle`; or "balanced": as many images as there are, every
            class equally often. An item that comes more than once in an epoch is augmented anew each time.
        rank, world_size: which of how many processes this is, by default as torch.distributed says when an epoch
            begins. A step of all takes `batch_size` images for each. For training they take equally many; else, and
            with `shuffle=False`, every image comes once, in one of them. A DistributedSampler, which has its share
            already, is left alone.
        seed: of the order and of all draws, from 0.
        num_workers: threads that read and decode, by default all processors that this process may use.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".
        output: "float" for normalised images of type `dtype`, or "uint8" for 0-255, to transform further.
        dtype: float32, float16 or bfloat16.
        layout: "NCHW", shape (B, 3, H, W) in channels_last memory format, or "NHWC", the same memory as (B, H, W, 3).
        mean, std: of the normalisation, a value a channel on a scale from 0 to 1.
        batch_transform: called with (images, labels) of each batch, on the device; what it returns is delivered.
        hw_decoder_load: share of the images, 0-1, that a GPU's JPEG engine decodes, where it has one (A100, H100).
        cache: keep decoded images from the first epoch on, in the memory of the "host" or of the "device": what
            fits in half of what is free there. "auto" does so where all images fit, the device first.
        on_bad_file: "raise" BadFileError for an image that cannot be used, at once where its header shows it and
            else when its turn comes; "skip" it, with a warning; or "replace" it by another where a batch lacks it, too.
            `bad_files` maps each one met to its problem.
        max_pixels: of an image; a larger one is a bad file. Pillow's own limit holds as well.
        label_from: where labels stand if `source` is a folder: in the file's "name", its "folder"'s, or in "none";
            "auto" takes class folders if there are at least two, else file names.
    """

    def __init__(
        self,
        source: Any,
        *,
        batch_size: int = 64,
        size: int | tuple[int, int] = 224,
        augment: bool | str | Augment = False,
        presize: int | None = None,
        presize_method: validation.PresizeMethod = "crop",
        borders: validation.Borders = "reflect",
        supersample: int = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | str | None = None,
        drop_last: bool | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        seed: int = 0,
        num_workers: int | None = None,
        device: str | torch.device = "auto",
        output: validation.Output = "float",
        dtype: torch.dtype | str = torch.float32,
        layout: validation.Layout = "NCHW",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        batch_transform: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
        hw_decoder_load: float = 0.0,
        cache: validation.CacheWhere = "none",
        on_bad_file: validation.OnBadFile = "raise",
        max_pixels: int = MAX_PIXELS,
        label_from: validation.LabelFrom = "auto",
        **of_a_data_loader: Any,
    ) -> None:
        settings.refuse(of_a_data_loader)
        check_choice("cache", cache, CacheWhere)
        check_choice("on_bad_file", on_bad_file, OnBadFile)
        check_choice("label_from", label_from, LabelFrom)
        self.preprocessing = Preprocessing(
            size=size,  # type: ignore[arg-type]
            presize=presize,
            presize_method=presize_method,
            borders=borders,
            supersample=supersample,
            mean=tuple(mean),  # type: ignore[arg-type]
            std=tuple(std),  # type: ignore[arg-type]
            output=output,
            dtype=dtype,  # type: ignore[arg-type]
            layout=layout,
            max_pixels=max_pixels,
        )
        settings.check_numbers(batch_size=batch_size)
        self.shrink_for = self.preprocessing.size
        self.augment = settings.resolve_augment(augment)
        trains = self.augment is not None
        self.num_workers = num_workers or num_processors()
        self.device = settings.resolve_device(device)
        validation.check_range("hw_decoder_load", hw_decoder_load, 0, 1)
        self.batch_transform, self.on_bad_file = batch_transform, on_bad_file
        self.hw_decoder_load = hw_decoder_load
        self.bad_files: dict[str, str] = {}
        self.dataset = as_dataset(source, label_from=label_from)
        self.headers = self._scanned()
        self.position = Position(
            self.usable.copy(),
            batch_size=batch_size,
            shuffle=trains if shuffle is None else shuffle,
            sampler=resolve_sampler(sampler, self.dataset.labels, self.usable),
            drop_last=trains if drop_last is None else drop_last,
            even=trains and shuffle is not False,
            ranks=(rank, world_size),
            seed=seed,
        )
        sizes = shrunk_sizes(self.headers.heights, self.headers.widths, self.shrink_for, presize, presize_method)
        self.cache, self.buffers = make_cache(cache, sizes, self.device), Buffers(self.device)
        self.streams: dict[int, list[Stream]] = {}  # idle ones for the next epoch, by the process that made them
        if oddity := self.position.oddity():
            warnings.warn(oddity, stacklevel=2)

    def _scanned(self) -> ImageHeaders:
        """The headers' facts. What they show to be no image is reported, and never delivered."""
        self.dataset = self.dataset.scanned(self.num_workers)
        assert self.dataset.headers is not None
        headers = self.dataset.headers.limited(self.preprocessing.max_pixels)
        decoders = headers.decoders.copy()
        headers = replace(headers, decoders=decoders)
        decoders.flags.writeable = True  # an epoch notes here what DALI does not decode
        self.usable = headers.usable.copy()
        if not self.usable.all():
            bad = np.flatnonzero(~self.usable).tolist()
            self.report_bad_files({i: headers.problems[self.dataset.paths[i]] for i in bad})
        if not self.usable.any():
            raise FastpetsError(
                f"no image to load: {len(self.dataset)} items, of which {len(self.bad_files)} are bad files"
            )
        return headers

    @property
    def dtype(self) -> torch.dtype:
        """The type of the images."""
        return getattr(torch, self.preprocessing.dtype)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that the labels index."""
        return self.dataset.classes

    batch_sampler = None  # which libraries ask for that know a DataLoader

    @property
    def sampler(self) -> Position:
        """What decides the order, for loops that call `loader.sampler.set_epoch(epoch)` or take its length."""
        return self.position

    @property
    def batch_size(self) -> int:
        """Images a batch."""
        return self.position.batch_size

    @property
    def epoch(self) -> int:
        """The epoch that the next pass will be."""
        return self.position.epoch

    def __len__(self) -> int:
        """Batches in an epoch, for this process."""
        return self.position.num_batches()

    def set_epoch(self, epoch: int) -> None:
        """Makes `epoch` the next one; if a state was loaded in it, the next pass still goes on there."""
        self.position.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, for `load_state_dict`: what was delivered of the epoch that began last.

        What was read ahead does not count. It holds plain numbers, and tensors if there is a sampler.
        """
        return self.position.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Has the next pass go on where a loader of the same source was, whatever its batch size or device.

        Raises FastpetsError if the number of images is another.
        """
        self.position.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        with Epoch(self, self.position.begin()) as epoch:  # begun with its first batch, as some call iter() to look
            for images, ids, delivered in epoch:
                labels = kernels.moved(torch.from_numpy(self.dataset.labels[ids]), self.device)
                if self.preprocessing.layout == "NHWC":
                    images = images.permute(0, 2, 3, 1)
                if self.batch_transform is not None:
                    images, labels = self.batch_transform(images, labels)
                self.position.reached(epoch.course, delivered)
                yield Batch(images, labels, ids)
        self.position.finished(epoch.course)

    def like(self, source: Any, **changes: Any) -> "Loader":
        """A loader of other images, of which no labels are expected, that sees them as this one does."""
        same: dict[str, Any] = {name: getattr(self, name) for name in settings.SEEING}
        same |= self.preprocessing.to_dict()
        own: dict[str, Any] = {"augment": self.augment or False, "seed": self.position.seed, "label_from": "none"}
        return Loader(source, **(same | own | changes))

    def resize(self, size: tuple[int, int]) -> None:
        """Has the epochs that begin from now on come at another size; what a cache keeps stays as it is."""
        self.preprocessing = replace(self.preprocessing, size=size)
        self.shrink_for = size if self.cache is None else self.shrink_for

    def peek(self) -> Batch:
        """The batch that would come next, and still will."""
        place, batch = self.state_dict(), next(iter(self))
        self.load_state_dict(place)
        return batch

    def show_batch(self, num_images: int = 9) -> Image.Image:
        """A grid of the next batch's first images as the model gets them; a notebook shows it."""
        return batch_grid(self, num_images)

    def next_usable(self, i: int) -> int:
        """The item after `i`, or from the first one on, that is no bad file. Raises FastpetsError if there is none."""
        usable = np.flatnonzero(self.usable)
        if len(usable) == 0:
            raise FastpetsError(f"no image is left: all {len(self.dataset)} items are bad files")
        return int(usable[np.searchsorted(usable, i + 1) % len(usable)])

    def report_bad_files(self, problems: dict[int, str]) -> None:
        """Notes items that cannot be used, and raises BadFileError or warns, as `on_bad_file` says."""
        named = {self.dataset.paths[i]: problem for i, problem in problems.items()}
        self.bad_files.update(named)
        if self.on_bad_file == "raise":
            raise BadFileError(named)
        self.usable[list(problems)] = False
        done = "replaced" if self.on_bad_file == "replace" else "left out"
        warnings.warn(f"{done} {describe_bad_files(named)}", stacklevel=2)

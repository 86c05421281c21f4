"""Loader: loads, augments and batches the images of a dataset, in place of a torch DataLoader."""

from __future__ import annotations

import atexit
import copy
import os
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from fastpets.augment.geometry import shrunk_sizes
from fastpets.augment.policy import Augment, as_policy
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD, MAX_PIXELS, Preprocessing
from fastpets.data.sources import as_dataset
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.loading.bad_files import BadFiles
from fastpets.loading.batch import Batch
from fastpets.loading.cache import ImagesToCache, make_cache
from fastpets.loading.dataloader_arguments import reject
from fastpets.loading.device import resolve_device
from fastpets.loading.display import batch_grid
from fastpets.loading.engine import Engine, LoadedBatch
from fastpets.loading.fastai_names import FastaiNames
from fastpets.loading.planning import Planner
from fastpets.loading.prepared import PreparedEpoch
from fastpets.loading.sampler import EpochPlan, make_sampler
from fastpets.utils import notebook
from fastpets.utils.system import resolve_num_workers
from fastpets.utils.validation import (
    MAX_BATCH_SIZE,
    MAX_CACHE_GB,
    MAX_WORKERS,
    Borders,
    CacheWhere,
    Decode,
    DecoderName,
    LabelFrom,
    Layout,
    OnBadFile,
    Output,
    PresizeMethod,
    check_choice,
    check_range,
)

# Epochs that the caller has not finished, or not begun. At the end of the process they end before Python takes its
# modules apart.
_unfinished = weakref.WeakSet[Generator[Batch] | PreparedEpoch]()


@atexit.register
def _end_unfinished() -> None:
    for batches in [*_unfinished]:
        with suppress(ValueError):  # another thread is in it
            batches.close()


class Loader(FastaiNames):
    """Batches of decoded, augmented and normalised images, in place of a torch DataLoader.

    `for images, labels in loader:` runs one epoch, and each further loop the next one. A loop may be left at any batch.
    The order depends only on the seed and the epoch; an image's random parameters also depend on its item id and on how
    often it came before in the epoch.

    Args:
        source: a folder, a table (.csv, .tsv) with the columns file and label, tar shards, Parquet files, an
            ImageDataset, a list of paths or of (path, label), a data set of files of torchvision or timm, such as
            ImageFolder, or one of Hugging Face.
        batch_size: images per batch; the last batch may be smaller.
        size: height and width of the output in pixels, or one number for a square.
        augment: True (fastai's policy), an `Augment`, or a policy's name ("fastai", "trivial-geometric") for training;
            False for validation: the centre of each image.
        presize: upper limit in pixels for the shorter side of the part of an image that is kept. Larger images are
            shrunk by the smallest whole factor that meets it, but never below the output. Default: 4 times the
            output's shorter side.
        presize_method: what is kept of an image whose aspect ratio differs from the output's: "crop", the largest part
            that fits; "squish", all of it, distorted; "pad", all of it and what lies beyond its borders.
        borders: pixels beyond the image: "reflect", its mirror image; "border", its outermost pixels; "zeros", black.
        supersample: multiplies the number of samples per output pixel and axis, 1 to 4. 2 is less aliased and slower.
        shuffle, drop_last: as in a DataLoader. Default: True with `augment`, else False. The only batch of an epoch is
            never dropped.
        sampler: a torch sampler of item ids, instead of `shuffle`; or "balanced": as many images as there are, all
            classes equally often. A repeated item is augmented anew each time.
        rank, world_size: this process's rank and the number of processes. Default: torch.distributed's when an epoch
            starts. Each rank takes batches of `batch_size`. In training all ranks take equally many images; otherwise,
            and with `shuffle=False`, every image comes once, on one of the ranks. A DistributedSampler has divided the
            items already and is left alone.
        seed: of the order and of the augmentation, at least 0.
        num_workers: threads that read, decode and warp; 0 means one. Default: the processors this process may use,
            divided by the processes on this machine (LOCAL_WORLD_SIZE), at most 16. On a GPU they decode beside it, and
            a quarter of them, but at least four, read.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".
        output: "float" for normalised images of type `dtype`, "uint8" for 0-255.
        dtype: torch.float32, float16, bfloat16, or uint8, which means `output="uint8"`.
        layout: "NCHW", (B, 3, H, W) in channels_last memory format, or "NHWC", the same memory as (B, H, W, 3).
        mean, std: of the normalisation, per channel, for values from 0 to 1. Default: ImageNet's, until a Learner takes
            those of its model.
        batch_transform: called with the images and labels of each batch, on the device; its result is delivered.
        decoder: "auto" is DALI on a GPU, and libjpeg-turbo and Pillow on a CPU. "dali" is DALI on a CPU, too, which
            needs its wheel, and starts CUDA where there is a GPU.
        decode: "exact" decodes all pixels, as Pillow does. "fast" decodes JPEGs that are shrunk anyway (see `presize`)
            at a half, a quarter or an eighth of their size, where that divides the factors. It takes 0.4 times as long
            for 12 megapixels; the pixels differ by a PSNR of more than 40 dB in photos. Not with DALI.
        hw_decoder_load: share of the images, 0 to 1, that a GPU's JPEG engine decodes, where it has one (A100, H100).
        cache: where decoded images are kept from the first epoch on: "none"; "host" or "device" memory; "disk", in
            files that later runs and other processes use, too; or "auto", the first of device, host and disk that has
            room for all images. Processes that torchrun started share one cache in the host's memory.
        cache_dir: the folder for `cache="disk"`. Default: the user's cache folder.
        cache_gb: the most that the cache may take, in GB. Default: half of what is free there; on a GPU, 6 GiB are left
            for training. On disk, this is for all datasets together: those used least recently are removed.
        on_bad_file: what to do about an unusable image. "raise" BadFileError: for a bad header when the Loader is made,
            for an image that does not decode when its batch is delivered; "skip" it with a warning; or "replace" it
            with the next good image.
        max_pixels: larger images are bad files; Pillow's own limit holds as well.
        label_from: where the labels of a folder are: in the file "name", in the "folder" name, "none", or "auto": in
            folder names if the images lie in two or more class folders, else in file names. For a list of paths, "auto"
            is "none".

    Attributes:
        dataset: the `ImageDataset`, whose indices are the item ids.
        headers: the `ImageHeaders` of its items.
        preprocessing: the `Preprocessing`, what a model sees.
        has_own_normalization: whether `mean` or `std` was given.
        augment: the `Augment`, or None.
        sampler: the `EpochSampler`: it has `set_epoch` and a length, and yields the item ids of the next epoch.
        device: the torch.device of the batches.
        cache_reason: a line that says where decoded images are kept, and why.
        decode: "exact" or "fast", on which the pixels of shrunk images depend.
        batch_sampler: None; some libraries read it.

    Raises InvalidArgumentError for an invalid argument, BadFileError for bad files, FastpetsError if no image is left.
    """

    batch_sampler = None

    def __init__(
        self,
        source: Any,
        batch_size: int = 64,
        *,
        size: int | tuple[int, int] = 224,
        augment: bool | str | Augment = False,
        presize: int | None = None,
        presize_method: PresizeMethod = "crop",
        borders: Borders = "reflect",
        supersample: int = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | str | None = None,
        drop_last: bool | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        seed: int = 0,
        num_workers: int | None = None,
        device: str | torch.device = "auto",
        output: Output = "float",
        dtype: torch.dtype | str = torch.float32,
        layout: Layout = "NCHW",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_transform: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
        decoder: DecoderName = "auto",
        decode: Decode = "exact",
        hw_decoder_load: float = 0.0,
        cache: CacheWhere = "none",
        cache_dir: str | os.PathLike[str] | None = None,
        cache_gb: float | None = None,
        on_bad_file: OnBadFile = "raise",
        max_pixels: int = MAX_PIXELS,
        label_from: LabelFrom = "auto",
        **dataloader_arguments: NoReturn,  # type checkers reject them; _DATALOADER_ONLY has the messages
    ) -> None:
        reject(dataloader_arguments)
        self.has_own_normalization = mean is not None or std is not None
        mean, std = IMAGENET_MEAN if mean is None else mean, IMAGENET_STD if std is None else std
        converted: dict[str, Any] = {"size": size, "mean": mean, "std": std, "dtype": dtype}  # by Preprocessing
        self.preprocessing = Preprocessing(
            presize=presize, presize_method=presize_method, borders=borders, supersample=supersample, output=output,
            layout=layout, max_pixels=max_pixels, **converted,
        )  # fmt: skip
        self.augment = as_policy(augment)
        check_range("batch_size", batch_size, 1, MAX_BATCH_SIZE)
        check_range("num_workers", num_workers or 0, 0, MAX_WORKERS)
        check_range("hw_decoder_load", hw_decoder_load, 0, 1)
        check_choice("decoder", decoder, DecoderName)
        check_choice("decode", decode, Decode)
        check_choice("cache", cache, CacheWhere)
        if cache_gb is not None:
            check_range("cache_gb", cache_gb, 0, MAX_CACHE_GB)
        check_choice("on_bad_file", on_bad_file, OnBadFile)
        self.num_workers = resolve_num_workers(num_workers)
        self.device, self.batch_transform = resolve_device(device), batch_transform
        self.decoder, self.decode, self.hw_decoder_load = decoder, decode, hw_decoder_load
        if decode == "fast" and self._uses_dali:
            raise InvalidArgumentError("decode: 'fast', but DALI decodes whole images only; use 'exact'")
        self.dataset = as_dataset(source, label_from=label_from).scanned(self.num_workers)
        assert self.dataset.headers is not None
        self.headers = self.dataset.headers.limited(max_pixels)
        self._bad_files = BadFiles(self.dataset.paths, self.headers, on_bad_file)
        self._report_bad_headers()
        self.sampler = make_sampler(
            self.dataset, self.headers.usable, trains=self.augment is not None, batch_size=batch_size, shuffle=shuffle,
            sampler=sampler, drop_last=drop_last, rank=rank, world_size=world_size, seed=seed,
        )  # fmt: skip
        if warning := self.sampler.warning():
            warnings.warn(warning, stacklevel=2)
        self._shrink_for = self.preprocessing.size
        self.cache, self.cache_reason = (
            (None, "none") if cache == "none" else make_cache(cache, self._images_to_cache(), cache_dir, cache_gb)
        )
        self._engine = self._make_engine()
        self._prepared: PreparedEpoch | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: a copy continues with this Loader's next epoch, on an engine of its own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_engine", "_prepared")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepared = None
        self._engine = self._make_engine()

    def _images_to_cache(self) -> ImagesToCache:
        headers, preprocessing = self.headers, self.preprocessing
        limits = self._shrink_for, preprocessing.presize, preprocessing.presize_method
        sizes, shrink = shrunk_sizes(headers.heights, headers.widths, headers.orientations, *limits)
        return ImagesToCache(headers, self.dataset.root, sizes, shrink, self.device, self._uses_dali, self.decode)

    @property
    def _uses_dali(self) -> bool:
        return self.device.type != "cpu" or self.decoder == "dali"

    def _make_engine(self) -> Engine:
        """The engine for this device and decoder. Raises FastpetsError without DALI.

        It is imported only now: importing nvImageCodec starts CUDA where there is a GPU, on the current one.
        """
        parts = self.dataset.paths, self.headers, self._bad_files, self.cache, self.num_workers
        if not self._uses_dali:
            from fastpets.loading.cpu_engine import CpuEngine

            return CpuEngine(*parts, decode=self.decode)
        try:
            with nullcontext() if self.device.type == "cpu" else torch.cuda.device(self.device):
                from fastpets.loading.dali_engine import DaliEngine
        except ImportError as error:
            raise FastpetsError(str(error)) from None
        return DaliEngine(*parts, device=self.device, batch_size=self.batch_size, hw_decoder_load=self.hw_decoder_load)

    def _report_bad_headers(self) -> None:
        """Reports the files whose headers are bad. Raises FastpetsError if no image is left."""
        if len(self.dataset) == 0:
            raise FastpetsError("source: no images, expected at least one")
        bad = np.flatnonzero(~self.headers.usable).tolist()
        if bad:
            self._bad_files.report({i: self.headers.problems[self.dataset.paths[i]] for i in bad})
        if len(bad) == len(self.dataset):
            raise FastpetsError(f"no image is left: all {len(self.dataset)} files are bad")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.dataset.classes

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self.sampler.batch_size

    @property
    def dtype(self) -> torch.dtype:
        """The type of the images."""
        return getattr(torch, self.preprocessing.dtype)

    @property
    def on_bad_file(self) -> OnBadFile:
        """What is done about a bad file."""
        return self._bad_files.on_bad_file

    @property
    def bad_files(self) -> dict[str, str]:
        """The path of each bad file met so far, and what is wrong with it."""
        return self._bad_files.problems

    @property
    def epoch(self) -> int:
        """The number of the next epoch."""
        return self.sampler.epoch

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return self.sampler.num_batches()

    def __repr__(self) -> str:
        return f"Loader({', '.join(f'{name}: {value}' for name, value in self._description().items())})"

    def _repr_html_(self) -> str:
        return notebook.description("Loader", self._description())

    def _description(self) -> dict[str, Any]:
        return {
            "images": f"{len(self.dataset):,}",
            "classes": len(self.classes),
            "batches": f"{len(self)} of {self.batch_size}",
            "size": "{1} x {0} px".format(*self.preprocessing.size),
            "augment": self.augment or "none",
            "cache": self.cache_reason,
            "device": self.device,
        }

    def set_epoch(self, epoch: int) -> None:
        """Makes `epoch` the next one. If a loaded state is within that epoch, the rest of the epoch is next."""
        self.sampler.set_epoch(epoch)

    def skip_batches(self, num_batches: int) -> None:
        """Makes the next loop leave out the first `num_batches` of its epoch, without reading them.

        Raises InvalidArgumentError for more than the epoch has.
        """
        self.sampler.skip_batches(num_batches)

    def state_dict(self) -> dict[str, Any]:
        """How much of the latest epoch was delivered, for `load_state_dict`; batches read ahead do not count.

        It holds numbers and strings, tensors if there is a sampler, its own version, and a fingerprint of the items.
        """
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where a Loader of the same images was, whatever its batch size, device or number of ranks.

        Raises FastpetsError if the state belongs to another data set, sampler or version.
        """
        self.sampler.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._epoch()
        _unfinished.add(batches)
        return batches

    def prepare(self) -> None:
        """Starts to make the first batch of the next epoch, in a thread; the next loop continues from it.

        Call it before work that comes between two epochs, such as validation. It changes no batch. The work is lost,
        and the loop waits for its end, if that loop runs another epoch or has other settings, and also after `peek`.
        With a sampler of your own or "balanced" it does nothing: such a sampler would be asked for its order twice.
        """
        self.end_prepared()
        if self.sampler.torch_sampler is not None:
            return
        plan = self.sampler.next_plan()
        planner = self._planner(plan.epoch)
        self._prepared = PreparedEpoch(plan, planner, self._run(plan, planner), self.device)
        _unfinished.add(self._prepared)

    def end_prepared(self) -> None:
        """Ends an epoch that was prepared, if there is one: its threads, and what it has in memory."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.close()

    def _epoch(self) -> Generator[Batch]:
        # The epoch starts at the first next(), not at iter(): some libraries call iter() and drop the iterator.
        plan = self.sampler.start_epoch()
        with closing(self._batches(plan)) as batches:
            for batch, end in batches:
                self.sampler.advance(plan, end)
                yield batch
        self.sampler.finish(plan)

    def _batches(self, plan: EpochPlan) -> Generator[tuple[Batch, int]]:
        """Yields the batches of an epoch, each with the number of items that all ranks have after it."""
        planner = self._planner(plan.epoch)
        prepared, self._prepared = self._prepared, None  # at once: another loop may be started in another thread
        if prepared is not None and prepared.is_for(plan, planner):
            run = prepared.batches()
        else:
            if prepared is not None:
                prepared.close()
            run = self._run(plan, planner)
        with closing(run) as batches:
            for planned, images, labels in batches:
                if planner.preprocessing.layout == "NCHW":
                    images = images.permute(0, 3, 1, 2)
                if self.batch_transform is not None:
                    images, labels = self.batch_transform(images, labels)
                yield Batch(images, labels, planned.ids), planned.end

    def _planner(self, epoch: int) -> Planner:
        return Planner(
            headers=self.headers,
            labels=self.dataset.labels,
            preprocessing=self.preprocessing,
            shrink_for=self._shrink_for,
            augment=self.augment,
            seed=self.sampler.seed,
            epoch=epoch,
        )

    def _run(self, plan: EpochPlan, planner: Planner) -> Generator[LoadedBatch]:
        """Has the engine make the batches of an epoch."""
        if self.cache is not None:
            self.cache.refresh()
        return self._engine.run(planner.batches(plan, self._bad_files), planner)

    def like(self, source: Any, **changes: Any) -> Loader:
        """Returns a Loader of another source with this one's preprocessing, augmentation and settings.

        A folder is read without labels. The cache, the sampler and the ranks are not taken over; `changes` are further
        arguments of the Loader, which come first.
        """
        same = ("batch_size", "batch_transform", "num_workers", "device", "decoder", "decode", "hw_decoder_load")
        settings: dict[str, Any] = {name: getattr(self, name) for name in (*same, "on_bad_file")}
        settings |= self.preprocessing.to_dict()
        settings |= {"augment": self.augment or False, "seed": self.sampler.seed, "label_from": "none"}
        loader = Loader(source, **(settings | changes))
        loader.has_own_normalization = self.has_own_normalization or bool({"mean", "std"} & set(changes))
        return loader

    def with_classes(self, classes: Sequence[str]) -> Loader:
        """This Loader with the labels of the same names in `classes`: itself if its classes are these, else a copy.

        The copy has the same cache and the same sampler, and so the same next epoch. Raises FastpetsError for images of
        other classes.
        """
        if tuple(classes) == self.classes:
            return self
        other = copy.copy(self)
        other.dataset = self.dataset.with_classes(classes)
        return other

    def resize(self, size: tuple[int, int]) -> None:
        """Sets the output size, height and width, of the epochs that start from now on; cached images stay."""
        self.preprocessing = replace(self.preprocessing, size=size)
        if self.cache is None:
            self._shrink_for = self.preprocessing.size

    def normalize(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the normalisation of the epochs that start from now on; cached images stay."""
        normalization: dict[str, Any] = {"mean": mean, "std": std}
        self.preprocessing = replace(self.preprocessing, **normalization)

    def peek(self) -> Batch:
        """The first batch of the next loop, which still delivers it. Raises FastpetsError if it has none."""
        with closing(self._batches(self.sampler.next_plan())) as batches:
            for batch, _ in batches:
                return batch
        raise FastpetsError("no batch: the next epoch has no image that can be used")

    def show_batch(self, num_images: int = 9) -> Image.Image:
        """A grid of the next batch's first images as the model sees them; a notebook displays it."""
        return batch_grid(self.peek(), self.classes, self.preprocessing, num_images)

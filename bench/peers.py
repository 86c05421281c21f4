"""The rows of the loading benchmarks: this project's loader, other libraries' loaders, and decoding alone.

Each row is a function of the paths, their labels and the number of threads or worker processes. Those that
`bench_growth.py` varies also take the output size or the batch size. A row returns an iterable; each pass over it is an
epoch of batches of float images and labels. Optional libraries are imported where they are used.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import local
from typing import Any

import numpy as np
import simplejpeg
import torch

from bench.peer_loaders import (
    BATCH_SIZE,
    SIZE,
    dali_native,
    fastai,
    ffcv,
    opencv,
    timm,
    torchvision,
    ultralytics_disk,
)
from bench.second_run import SecondRun
from fastpets import kernels, pipelines
from fastpets.augment import lookup_tables
from fastpets.data.dataset import ImageDataset
from fastpets.loading.loader import Loader
from fastpets.loading.planning import Planner
from fastpets.loading.pool import Pool

Peer = Callable[..., Iterable[Any]]


def fastpets(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    size: int = SIZE,
    batch_size: int = BATCH_SIZE,
    augment: bool = True,
    **settings: Any,
) -> Iterable[Any]:
    """This project's loader with its default augmentation, that of fastai's chapter; `settings` go to Loader."""
    dataset = ImageDataset(tuple(paths), np.array(labels), tuple(map(str, range(max(labels) + 1))))
    return Loader(
        dataset,
        batch_size=batch_size,
        size=size,
        augment=augment,
        num_workers=num_workers,
        device="cpu",
        drop_last=False,
        **settings,
    )


def fastpets_short(paths: Sequence[str], labels: Sequence[int], num_workers: int) -> Iterable[Any]:
    """Eight epochs of an eighth of the images each, by a training and a validation loader in turn."""
    count = len(paths) // 8
    train = fastpets(paths[:count], labels[:count], num_workers)
    return _InTurn(train, fastpets(paths[:count], labels[:count], num_workers, augment=False), 8)


class _InTurn:
    def __init__(self, train: Iterable[Any], valid: Iterable[Any], num_epochs: int) -> None:
        self.loaders, self.num_epochs = (train, valid), num_epochs

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.num_epochs):
            yield from self.loaders[number % 2]


def fastpets_disk(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    size: int = SIZE,
    batch_size: int = BATCH_SIZE,
) -> Iterable[Any]:
    """The first epoch of a second run with `cache="disk"`, in a process of its own."""
    settings = {"augment": True, "device": "cpu", "drop_last": False}
    return SecondRun(paths, batch_size=batch_size, size=size, num_workers=num_workers, **settings)


def warp_only(paths: Sequence[str], labels: Sequence[int], num_workers: int) -> Iterable[Any]:
    """The warp kernel alone, in threads, on decoded images in memory and into memory that each batch reuses.

    Matrices and lookup tables are computed beforehand. A batch's labels are its item ids, and its images None.
    """
    return _WarpInThreads(fastpets(paths, labels, num_workers, cache="host"), num_workers)


class _WarpInThreads:
    def __init__(self, loader: Any, num_threads: int) -> None:
        for _ in loader:
            pass
        self.cache, self.num_threads = loader.cache, num_threads
        planner = Planner(
            headers=loader.headers,
            labels=loader.dataset.labels,
            preprocessing=loader.preprocessing,
            shrink_for=loader.preprocessing.size,
            augment=loader.augment,
            seed=0,
            epoch=0,
        )
        plan = loader.sampler.start_epoch()
        self.ids = [plan.ids[part] for part in plan.batches]
        transforms = [planner.transforms(ids, np.zeros_like(ids)) for ids in self.ids]
        normalization = loader.preprocessing.normalization
        luts = [lookup_tables.luts(each.adjustments, normalization) for each in transforms]
        self.arguments = [(*each[:3], tables) for each, tables in zip(transforms, luts, strict=True)]
        self.out = torch.empty(loader.batch_size, *loader.preprocessing.size, 3)

    def warp(self, ids: np.ndarray, arguments: Sequence[np.ndarray], share: slice) -> None:
        matrices, samples, spread, luts = (torch.from_numpy(array[share]) for array in arguments)
        images = self.cache.packed(ids[share])
        kernels.warp(images, matrices, samples, spread, luts, self.out[: len(ids)][share])

    def __iter__(self) -> Iterator[Any]:
        with Pool(self.num_threads) as pool:
            for ids, arguments in zip(self.ids, self.arguments, strict=True):
                pool.run_shares(partial(self.warp, ids, arguments), len(ids))
                yield None, ids


def decode_only(
    paths: Sequence[str], labels: Sequence[int], num_workers: int, *, batch_size: int = BATCH_SIZE
) -> Iterable[Any]:
    """libjpeg-turbo alone, in threads, on bytes in memory and into memory that each thread reuses.

    A batch's labels are its files, and its images None.
    """
    return _DecodeInThreads(_encoded_batches(paths, batch_size), num_workers)


class _DecodeInThreads:
    def __init__(self, batches: list[list[np.ndarray]], num_threads: int) -> None:
        self.batches, self.num_threads = batches, num_threads
        self.buffers = local()

    def decode(self, encoded: np.ndarray) -> None:
        buffer = getattr(self.buffers, "memory", None)
        if buffer is None:
            buffer = self.buffers.memory = np.empty(2**26, np.uint8)
        simplejpeg.decode_jpeg(encoded, "RGB", buffer=buffer)

    def __iter__(self) -> Iterator[Any]:
        with ThreadPoolExecutor(self.num_threads) as pool:
            pending = [(batch, [pool.submit(self.decode, image) for image in batch]) for batch in self.batches]
            for batch, tasks in pending:
                for task in tasks:
                    task.result()
                yield None, batch


def decode_only_dali(
    paths: Sequence[str], labels: Sequence[int], num_workers: int, *, batch_size: int = BATCH_SIZE
) -> Iterable[Any]:
    """DALI's decoder alone, on bytes in memory. A batch's labels are its files, and its images None."""
    return _DecodeByDali(_encoded_batches(paths, batch_size), batch_size, num_workers)


class _DecodeByDali:
    """Decodes all batches in each pass, two batches ahead, and yields None and the encoded batch."""

    def __init__(self, batches: list[list[np.ndarray]], batch_size: int, num_threads: int) -> None:
        self.batches = batches
        self.settings = {"batch_size": batch_size, "num_threads": num_threads}

    def __iter__(self) -> Iterator[Any]:
        pipeline = pipelines.DecodePipeline(self.batches[:2], **self.settings, device="cpu", device_id=None)
        for number, batch in enumerate(self.batches):
            pipeline.take()
            if number + 2 < len(self.batches):
                pipeline.put(self.batches[number + 2])
            yield None, batch


def _encoded_batches(paths: Sequence[str], batch_size: int) -> list[list[np.ndarray]]:
    encoded = [np.fromfile(path, np.uint8) for path in paths]
    return [encoded[start : start + batch_size] for start in range(0, len(encoded), batch_size)]


PEERS: dict[str, Peer] = {
    "fastpets": fastpets,
    "fastpets-short": fastpets_short,
    "fastpets-dali": partial(fastpets, decoder="dali"),
    "fastpets-cached": partial(fastpets, cache="host"),
    "fastpets-disk": fastpets_disk,
    "fastpets-fast": partial(fastpets, decode="fast"),
    "torchvision": torchvision,
    "torchvision-pillow": partial(torchvision, pillow=True),
    "timm": timm,
    "fastai": fastai,
    "opencv": opencv,
    "dali-native": dali_native,
    "ultralytics-disk": ultralytics_disk,
    "ffcv-raw": partial(ffcv, write_mode="raw"),
    "ffcv-jpeg": partial(ffcv, write_mode="jpg"),
    "warp-only": warp_only,
    "decode-only": decode_only,
    "decode-only-dali": decode_only_dali,
}
# The optional library that a row needs: README.md says how to install it.
LIBRARIES = {
    "timm": "timm",
    "fastai": "fastai",
    "opencv": "cv2",
    "ultralytics-disk": "ultralytics",
    "ffcv-raw": "ffcv",
    "ffcv-jpeg": "ffcv",
}

"""One epoch under way: files being read, batches being decoded, and what happens when a picture fails."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastpets import pipelines
from fastpets.assemble import assemble, slices
from fastpets.augment import Transforms, transforms
from fastpets.manifest import PILLOW
from fastpets.reading import UnusablePicture, read_encoded
from fastpets.system import give_back_freed_memory

if TYPE_CHECKING:
    from fastpets.loader import Loader

READING, DECODING = 2, 2  # batches whose files are read ahead, and batches in DALI's hands

File = np.ndarray | UnusablePicture  # its bytes, or why there are none


class Request(NamedTuple):
    """A batch whose files are being read: ids (B,), what is to be done to them, and a future for each part of those
    files that must be decoded; `wanted` (M,) are their positions in the batch."""

    ids: np.ndarray
    transforms: Transforms
    wanted: np.ndarray
    parts: list[Future[list[File]]]


class Ready(NamedTuple):
    """A batch whose files are read and can go to the decoder: M of its B pictures, the others are in the cache."""

    ids: np.ndarray
    transforms: Transforms
    wanted: np.ndarray
    encoded: list[np.ndarray]


class Epoch:
    """An iterator over (images, ids) of the given batches, that holds threads and a pipeline while it lasts."""

    def __init__(self, loader: Loader, number: int, batches: Sequence[np.ndarray]) -> None:
        self.loader, self.number = loader, number
        self.batches = deque(batches)
        self.reading: deque[Request] = deque()
        self.decoding: deque[Ready] = deque()
        self.lent: deque[tuple[torch.cuda.Event, Any]] = deque()
        self.pool = ThreadPoolExecutor(loader.num_workers, thread_name_prefix="fastpets-read")
        self.stream: pipelines.Stream | None = None
        with contextlib.suppress(IndexError):  # there is none before the first epoch, and while another loop goes on
            self.stream = loader.streams.pop()
        on_gpu = loader.device.type == "cuda"
        self.device: dict[str, Any] = {
            "device": "gpu" if on_gpu else "cpu",
            "device_id": loader.device.index if on_gpu else None,
        }

    def __enter__(self) -> Epoch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        if self.lent:
            self.lent[-1][0].synchronize()
        try:
            for batch in self.decoding:
                self._take(batch)
        except RuntimeError:
            return  # a stream that failed is of no further use
        if self.stream is not None and not self.loader.streams:
            self.loader.streams.append(self.stream)
        give_back_freed_memory()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        self._advance()
        while self.decoding:
            try:
                decoded = self._take(self.decoding[0])
            except RuntimeError:
                self._recover()
                continue
            batch = self.decoding.popleft()
            self._advance()  # so that files are read and pictures decoded while the batch is warped and used
            images = assemble(self.loader, self.pool, batch.ids, batch.transforms, batch.wanted, decoded)
            if self.loader.device.type == "cuda":
                self._lend(decoded)
            yield images, batch.ids

    def _take(self, batch: Ready) -> list[Any]:
        """DALI's tensors of the pictures that had to be decoded."""
        return self.stream.take() if self.stream is not None and batch.encoded else []

    def _advance(self) -> None:
        """Keeps as many batches as intended with DALI, and as many behind them in the readers' hands."""
        fresh = []
        while len(self.decoding) < DECODING and (self.reading or self.batches):
            self._read_ahead()
            request = self.reading.popleft()
            files = [each for part in request.parts for each in part.result()]
            batch = self._ready(request.ids, request.transforms, request.wanted, files)
            if len(batch.ids):
                self.decoding.append(batch)
                fresh.append(batch)
        self._read_ahead()
        if self.stream is None:
            fresh = list(self.decoding)
        encoded = [batch.encoded for batch in fresh if batch.encoded]
        if self.stream is not None:
            for batch_encoded in encoded:
                self.stream.put(batch_encoded)
        elif encoded:
            self.stream = pipelines.Stream(
                encoded, batch_size=self.loader.batch_size, num_threads=self.loader.num_workers, **self.device
            )

    def _read_ahead(self) -> None:
        while self.batches and len(self.reading) < READING:
            self.reading.append(self._request(self.batches.popleft()))

    def _request(self, ids: np.ndarray) -> Request:
        """A batch whose files begin to be read, less those that were found bad before."""
        loader, manifest = self.loader, self.loader.manifest
        if loader.bad_files:
            ids = np.array([i for i in ids if loader.items.paths[i] not in loader.bad_files], np.int64)
        todo = transforms(
            ids,
            manifest.heights[ids],
            manifest.widths[ids],
            size=loader.size,
            presize=loader.presize,
            presize_method=loader.presize_method,
            supersample=loader.supersample,
            normalization=None if loader.output == "uint8" else (loader.mean, loader.std),
            augment=loader.augment,
            seed=loader.seed,
            epoch=self.number,
        )
        wanted = np.arange(len(ids)) if loader.cache is None else np.flatnonzero(~loader.cache.filled[ids])
        # A part for each thread, not a future for each file: those cost 2% of the loader's time on two cores.
        parts = [wanted[part] for part in slices(len(wanted), loader.num_workers)]
        return Request(ids, todo, wanted, [self.pool.submit(self._read, ids[part]) for part in parts])

    def _read(self, ids: np.ndarray) -> list[File]:
        paths, manifest = self.loader.items.paths, self.loader.manifest
        encoded: list[File] = []
        for i in ids:
            facts = int(manifest.kinds[i]), int(manifest.heights[i]), int(manifest.widths[i])
            try:
                encoded.append(read_encoded(paths[i], *facts))
            except UnusablePicture as problem:
                encoded.append(problem)
        return encoded

    def _ready(self, ids: np.ndarray, todo: Transforms, wanted: np.ndarray, encoded: Sequence[File]) -> Ready:
        """The batch without the files that cannot be used, which are reported."""
        good = np.array([isinstance(each, np.ndarray) for each in encoded], bool)
        if not good.all():
            bad = ids[wanted[~good]].tolist()
            problems = [str(each) for each in encoded if not isinstance(each, np.ndarray)]
            self.loader.report_bad_files(dict(zip([self.loader.items.paths[i] for i in bad], problems, strict=True)))
            kept = np.ones(len(ids), bool)
            kept[wanted[~good]] = False
            ids, todo = ids[kept], Transforms(*(part[kept] for part in todo))
            wanted = (np.cumsum(kept) - 1)[wanted[good]]
        return Ready(ids, todo, wanted, [each for each in encoded if isinstance(each, np.ndarray)])

    def _recover(self) -> None:
        """After a batch that did not decode: its culprits go through Pillow, from now on, and a new pipeline starts.

        What Pillow decodes is used, such as a PNG whose last check sum is wrong; what it refuses is a bad file.
        """
        self.stream = None
        batch = self.decoding.popleft()
        culprits = pipelines.undecodable(batch.encoded, **self.device)
        if not culprits:
            raise RuntimeError("a batch did not decode, but each of its pictures alone did: is memory short?")
        ids = batch.ids[batch.wanted[culprits]]
        self.loader.manifest.kinds[ids] = PILLOW
        encoded: list[File] = list(batch.encoded)
        for position, again in zip(culprits, self._read(ids), strict=True):
            encoded[position] = again
        batch = self._ready(batch.ids, batch.transforms, batch.wanted, encoded)
        if len(batch.ids):
            self.decoding.appendleft(batch)
        self._advance()

    def _lend(self, decoded: list[Any]) -> None:
        """Keeps DALI's memory until the kernels have read it: DALI writes into it again as soon as we let go."""
        event = torch.cuda.Event()
        event.record()
        self.lent.append((event, decoded))
        while self.lent and self.lent[0][0].query():
            self.lent.popleft()

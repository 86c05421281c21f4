"""One epoch under way: files being read, batches being decoded, and what happens when a picture fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastpets import kernels, pipelines
from fastpets.augment import Transforms, transforms
from fastpets.buffers import Buffers
from fastpets.manifest import PILLOW
from fastpets.reading import UnusablePicture, read_encoded

if TYPE_CHECKING:
    from fastpets.loader import Loader

READING, DECODING = 2, 2  # batches whose files are read ahead, and batches in DALI's hands

Encoded = np.ndarray | UnusablePicture  # a file's bytes, or why there are none


class Request(NamedTuple):
    """A batch whose files are being read: ids (B,), what is to be done to them, and a future for each part of them."""

    ids: np.ndarray
    transforms: Transforms
    parts: list[Future[list[Encoded]]]


class Ready(NamedTuple):
    """A batch whose files are read and can go to the decoder."""

    ids: np.ndarray
    transforms: Transforms
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
        self.buffers = Buffers(loader.device)
        on_gpu = loader.device.type == "cuda"
        self.device: dict[str, Any] = {
            "device": "gpu" if on_gpu else "cpu",
            "device_id": loader.device.index if on_gpu else None,
        }
        self.graph = partial(
            pipelines.warped_pictures,
            size=loader.size,
            batch_size=loader.batch_size,
            num_threads=loader.num_workers,
            **self.device,
        )

    def __enter__(self) -> Epoch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.stream = None
        if self.lent:
            self.lent[-1][0].synchronize()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        self._advance()
        while self.decoding:
            assert self.stream is not None
            try:
                pixels = self.stream.take()
            except RuntimeError:
                self._recover()
                continue
            batch = self.decoding.popleft()
            images = self._finish(pixels, batch.transforms.tables)
            self._advance()  # so that files are read and pictures decoded while the batch is used
            yield images, batch.ids

    def _advance(self) -> None:
        """Keeps as many batches as intended with DALI, and as many behind them in the readers' hands."""
        fresh = []
        while len(self.decoding) < DECODING and (self.reading or self.batches):
            self._read_ahead()
            request = self.reading.popleft()
            encoded = [each for part in request.parts for each in part.result()]
            batch = self._ready(request.ids, request.transforms, encoded)
            if len(batch.ids):
                self.decoding.append(batch)
                fresh.append(batch)
        self._read_ahead()
        if self.stream is None and self.decoding:
            self.stream = pipelines.Stream(self.graph, [_inputs(batch) for batch in self.decoding])
        elif self.stream is not None:
            for batch in fresh:
                self.stream.put(_inputs(batch))

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
            mean=loader.mean,
            std=loader.std,
            augment=loader.augment,
            seed=loader.seed,
            epoch=self.number,
        )
        # A part for each thread, not a future for each file: those cost 2% of the loader's time on two cores.
        parts = np.array_split(ids, min(len(ids), loader.num_workers)) if len(ids) else []
        return Request(ids, todo, [self.pool.submit(self._read, part) for part in parts])

    def _read(self, ids: np.ndarray) -> list[Encoded]:
        paths, manifest = self.loader.items.paths, self.loader.manifest
        encoded: list[Encoded] = []
        for i in ids:
            facts = int(manifest.kinds[i]), int(manifest.heights[i]), int(manifest.widths[i])
            try:
                encoded.append(read_encoded(paths[i], *facts))
            except UnusablePicture as problem:
                encoded.append(problem)
        return encoded

    def _ready(self, ids: np.ndarray, todo: Transforms, encoded: Sequence[Encoded]) -> Ready:
        """The batch without the files that cannot be used, which are reported."""
        good = np.array([isinstance(each, np.ndarray) for each in encoded], bool)
        if not good.all():
            paths = self.loader.items.paths
            self.loader.report_bad_files({paths[ids[j]]: str(encoded[j]) for j in np.flatnonzero(~good).tolist()})
            ids, todo = ids[good], Transforms(*(part[good] for part in todo))
        return Ready(ids, todo, [each for each in encoded if isinstance(each, np.ndarray)])

    def _recover(self) -> None:
        """After a batch that did not decode: its culprits go through Pillow, from now on, and a new pipeline starts.

        What Pillow decodes is used, such as a PNG whose last check sum is wrong; what it refuses is a bad file.
        """
        self.stream = None
        batch = self.decoding.popleft()
        culprits = pipelines.undecodable(batch.encoded, **self.device)
        if not culprits:
            raise RuntimeError("a batch did not decode, but each of its pictures alone did: is memory short?")
        self.loader.manifest.kinds[batch.ids[culprits]] = PILLOW
        encoded: list[Encoded] = list(batch.encoded)
        for position, again in zip(culprits, self._read(batch.ids[culprits]), strict=True):
            encoded[position] = again
        batch = self._ready(batch.ids, batch.transforms, encoded)
        if len(batch.ids):
            self.decoding.appendleft(batch)
        self._advance()

    def _finish(self, pixels: Any, tables: np.ndarray) -> torch.Tensor:
        """DALI's pixels through the tables: (B, 3, S, S) in memory that is the batch's own."""
        device = self.loader.device
        warped = torch.from_dlpack(pixels)
        out = self.buffers.empty(warped.shape, self.loader.dtype)
        images = kernels.look_up(warped, torch.from_numpy(tables).to(device), out)
        if device.type == "cuda":
            # DALI may write into its memory again as soon as we let go, which must be after the kernels have read it.
            event = torch.cuda.Event()
            event.record()
            self.lent.append((event, pixels))
            while self.lent and self.lent[0][0].query():
                self.lent.popleft()
        return images


def _inputs(batch: Ready) -> pipelines.Inputs:
    todo = batch.transforms
    return {
        "encoded": batch.encoded,
        "shrunk_size": todo.shrunk_size,
        "is_shrunk": todo.is_shrunk,
        "source_from_output": todo.source_from_output,
    }

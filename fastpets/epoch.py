"""One epoch under way: files being read, batches being decoded, and what happens when a picture fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

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


@dataclass
class Request:
    """A batch on its way: its ids (B,), what is to be done to them, and their encoded bytes once they are read."""

    ids: np.ndarray
    transforms: Transforms
    encoded: Sequence[Future[np.ndarray]]


class Epoch:
    """An iterator over (images, ids) of the given batches, that holds threads and a pipeline while it lasts."""

    def __init__(self, loader: Loader, number: int, batches: Sequence[np.ndarray]) -> None:
        self.loader, self.number = loader, number
        self.batches = deque(batches)
        self.reading: deque[Request] = deque()
        self.decoding: deque[Request] = deque()
        self.lent: deque[tuple[torch.cuda.Event, Any]] = deque()
        self.pool = ThreadPoolExecutor(loader.num_workers, thread_name_prefix="fastpets-read")
        self.stream: pipelines.Stream | None = None
        self.buffers = Buffers(loader.device)
        on_gpu = loader.device.type == "cuda"
        self.device: dict[str, Any] = {
            "device": "gpu" if on_gpu else "cpu",
            "device_id": loader.device.index if on_gpu else None,
        }

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
            request = self.decoding.popleft()
            images = self._finish(pixels, request.transforms.tables)
            self._advance()  # so that files are read and pictures decoded while the batch is used
            yield images, request.ids

    def _advance(self) -> None:
        """Keeps as many batches as intended with DALI, and as many behind them in the readers' hands."""
        fresh = []
        while len(self.decoding) < DECODING and (self.reading or self.batches):
            self._read_ahead()
            request = self._settled(self.reading.popleft())
            if len(request.ids):
                self.decoding.append(request)
                fresh.append(request)
        self._read_ahead()
        if self.stream is None and fresh:
            self._start()
        elif self.stream is not None:
            for request in fresh:
                self.stream.put(_inputs(request))

    def _read_ahead(self) -> None:
        while self.batches and len(self.reading) < READING:
            self.reading.append(self._request(self.batches.popleft()))

    def _start(self) -> None:
        graph = partial(
            pipelines.warped_pictures,
            size=self.loader.size,
            batch_size=self.loader.batch_size,
            num_threads=self.loader.num_workers,
            **self.device,
        )
        self.stream = pipelines.Stream(graph, [_inputs(request) for request in self.decoding])

    def _request(self, ids: np.ndarray) -> Request:
        """A batch whose files begin to be read, less those that were found bad before."""
        loader, manifest = self.loader, self.loader.manifest
        if loader.bad_files:
            ids = np.array([i for i in ids if loader.items.paths[i] not in loader.bad_files], np.int64)
        heights, widths = manifest.heights[ids], manifest.widths[ids]
        todo = transforms(
            ids,
            heights,
            widths,
            size=loader.size,
            presize=loader.presize,
            mean=loader.mean,
            std=loader.std,
            augment=loader.augment,
            seed=loader.seed,
            epoch=self.number,
        )
        return Request(ids, todo, [self._read(i) for i in ids])

    def _read(self, i: int) -> Future[np.ndarray]:
        manifest = self.loader.manifest
        facts = int(manifest.kinds[i]), int(manifest.heights[i]), int(manifest.widths[i])
        return self.pool.submit(read_encoded, self.loader.items.paths[i], *facts)

    def _settled(self, request: Request) -> Request:
        """The request when all its files are read, without those that cannot be used, which are reported."""
        problems, good = {}, np.ones(len(request.ids), bool)
        for position, (i, future) in enumerate(zip(request.ids, request.encoded, strict=True)):
            try:
                future.result()
            except UnusablePicture as problem:
                problems[self.loader.items.paths[i]] = str(problem)
                good[position] = False
        if not problems:
            return request
        self.loader.report_bad_files(problems)
        kept = [future for future, is_good in zip(request.encoded, good, strict=True) if is_good]
        return Request(request.ids[good], Transforms(*(part[good] for part in request.transforms)), kept)

    def _recover(self) -> None:
        """After a batch that did not decode: its culprits go through Pillow, from now on, and a new pipeline starts.

        What Pillow decodes is used, such as a PNG whose last check sum is wrong; what it refuses is a bad file.
        """
        self.stream = None
        request = self.decoding.popleft()
        culprits = pipelines.undecodable([future.result() for future in request.encoded], **self.device)
        if not culprits:
            raise RuntimeError("a batch did not decode, but each of its pictures alone did: is memory short?")
        self.loader.manifest.kinds[request.ids[culprits]] = PILLOW
        encoded = list(request.encoded)
        for position in culprits:
            encoded[position] = self._read(request.ids[position])
        request = self._settled(Request(request.ids, request.transforms, encoded))
        if len(request.ids):
            self.decoding.appendleft(request)
        if self.decoding:
            self._start()
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


def _inputs(request: Request) -> pipelines.Inputs:
    todo = request.transforms
    return {
        "encoded": [future.result() for future in request.encoded],
        "shrunk_size": todo.shrunk_size,
        "is_shrunk": todo.is_shrunk,
        "source_from_output": todo.source_from_output,
    }

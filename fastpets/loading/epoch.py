"""One epoch under way: batches decoded ahead, part by part, and what happens when an image does not decode."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastpets import pipelines
from fastpets.data.headers import PILLOW
from fastpets.errors import FastpetsError
from fastpets.loading.assemble import assemble, shrink_large, slices_by_size
from fastpets.loading.fetch import Fetcher, File, Ready
from fastpets.loading.position import Course
from fastpets.utils.system import give_back_freed_memory

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader

DECODING = 2  # parts of batches in DALI's hands
PART_BYTES = 2**27  # of decoded images, for each thread: a batch of larger ones is decoded part by part


class Part(NamedTuple):
    """What of a batch is decoded in one go: this slice of its `wanted` images."""

    batch: Ready
    which: slice

    @property
    def encoded(self) -> list[np.ndarray]:
        return self.batch.encoded[self.which]

    @property
    def is_last(self) -> bool:
        return self.which.stop == len(self.batch.wanted)


class Epoch:
    """An iterator over (images, ids, end) of a course's batches, that holds threads and a pipeline while it lasts."""

    def __init__(self, loader: Loader, course: Course) -> None:
        self.loader, self.course = loader, course
        self.waiting: deque[Part] = deque()
        self.decoding: deque[Part] = deque()
        self.problem: FastpetsError | None = None
        self.lent: deque[tuple[torch.cuda.Event, Any]] = deque()
        self.pool = ThreadPoolExecutor(loader.num_workers, thread_name_prefix="fastpets-read")
        self.fetcher = Fetcher(loader, course, self.pool)
        # Idle ones of this process: a child that was forked has its parent's, whose threads it has not.
        self.idle_streams = loader.streams.setdefault(os.getpid(), [])
        self.stream: pipelines.Stream | None = None
        with contextlib.suppress(IndexError):  # there is none before the first epoch, and while another loop goes on
            self.stream = self.idle_streams.pop()
        self.on_gpu = loader.device.type == "cuda"
        self.device: dict[str, Any] = {
            "device": "gpu" if self.on_gpu else "cpu",
            "device_id": loader.device.index if self.on_gpu else None,
        }

    def __enter__(self) -> Epoch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        if self.lent:
            self.lent[-1][0].synchronize()
        # What is under way must end before its files' bytes are let go; when Python ends, DALI may have gone first.
        with contextlib.suppress(RuntimeError, AttributeError, StopIteration):
            for part in self.decoding:
                self._take(part)
        # Only what came to its end is surely in order: an interrupt may have struck between any two lines.
        if kind is None and self.stream is not None and not self.idle_streams:
            self.idle_streams.append(self.stream)
        give_back_freed_memory()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, np.ndarray, int]]:
        by_position: dict[int, torch.Tensor] = {}  # of one batch, by their positions in it
        self._advance()
        while self.decoding:
            part = self.decoding[0]
            try:
                decoded = list(map(torch.from_dlpack, self._take(part)))
            except RuntimeError:
                self._recover()
                by_position.clear()  # the whole batch comes again
                continue
            self.decoding.popleft()
            self._advance()  # so that files are read and images decoded while these are warped and used
            positions, batch = part.batch.wanted[part.which], part.batch
            shrunk = shrink_large(self.pool, decoded, batch.transforms.shrink[positions])
            self._lend(decoded)
            by_position |= zip(positions.tolist(), shrunk, strict=True)
            if part.is_last:
                images = assemble(self.loader, self.pool, batch.ids, batch.transforms, by_position)
                self._lend(list(by_position.values()))
                by_position.clear()
                del decoded, shrunk
                yield images, batch.ids, batch.end
        if self.problem is not None:
            raise self.problem

    def _take(self, part: Part) -> list[Any]:
        """DALI's images of the part, as DLPack capsules."""
        return self.stream.take() if self.stream is not None and part.encoded else []

    def _advance(self) -> None:
        """Keeps as many parts as intended with DALI, and as many batches behind them in the readers' hands."""
        fresh: list[Part] = []
        while len(self.decoding) + len(fresh) < DECODING and self.problem is None:
            if self.waiting:
                fresh.append(self.waiting.popleft())
                continue
            try:
                batch = self.fetcher.next()
            except FastpetsError as problem:
                self.problem = problem  # raised when the batch's turn comes
                break
            if batch is None:
                break
            self.waiting.extend(self._parts(batch))
        encoded = [part.encoded for part in fresh if part.encoded]
        if self.stream is not None:
            for some in encoded:
                self.stream.put(some)
        elif encoded:
            self.stream = pipelines.Stream(
                encoded,
                batch_size=self.loader.batch_size,
                num_threads=self.loader.num_workers,
                hw_decoder_load=self.loader.hw_decoder_load,
                **self.device,
            )
        self.decoding.extend(fresh)

    def _parts(self, batch: Ready) -> list[Part]:
        """The batch in parts whose decoded images take no more memory than is intended; none if it is empty."""
        if len(batch.ids) == 0:
            return []
        ids, headers = batch.ids[batch.wanted], self.loader.headers
        num_bytes = 3 * headers.heights[ids].astype(np.int64) * headers.widths[ids]
        parts = slices_by_size(num_bytes, PART_BYTES * self.loader.num_workers) or [slice(0, 0)]
        return [Part(batch, which) for which in parts]

    def _recover(self) -> None:
        """After a part that did not decode: its culprits go through Pillow, from now on, and a new pipeline starts.

        What Pillow decodes is used, such as a PNG whose last check sum is wrong; what it refuses is a bad file.
        """
        self.stream = None
        failed = self.decoding[0]
        culprits = pipelines.undecodable(failed.encoded, **self.device)
        if not culprits:
            raise RuntimeError("a batch did not decode, but each of its images alone did: is memory short?")
        batch, places = failed.batch, [failed.which.start + culprit for culprit in culprits]
        ids = batch.ids[batch.wanted[places]]
        self.loader.headers.decoders[ids] = PILLOW
        files: list[File] = list(batch.encoded)
        for place, again in zip(places, self.fetcher.read(ids), strict=True):
            files[place] = again
        others = [part for part in (*self.decoding, *self.waiting) if part.batch is not batch]
        self.waiting = deque([*self._parts(self.fetcher.settle(batch, files)), *others])
        self.decoding.clear()
        self._advance()

    def _lend(self, images: list[torch.Tensor]) -> None:
        """Keeps DALI's memory until the kernels have read it: DALI writes into it again as soon as we let go."""
        if not self.on_gpu or not images:
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.loader.device))
        self.lent.append((event, images))
        while self.lent and self.lent[0][0].query():
            self.lent.popleft()

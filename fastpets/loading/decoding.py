"""The decode stage: encoded batches through one DALI pipeline, chunk by chunk, ahead of their use."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fastpets import pipelines
from fastpets.data.headers import ImageHeaders
from fastpets.errors import FastpetsError
from fastpets.loading.reading import EncodedBatch

DECODE_AHEAD = 2  # chunks in DALI's queue
CHUNK_BYTES = 2**27  # of decoded images, per thread: a batch of large images is decoded in chunks

Repair = Callable[[EncodedBatch, Sequence[int]], EncodedBatch]


class Chunk(NamedTuple):
    """The images of a batch that are decoded together: a slice of its `encoded`."""

    batch: EncodedBatch
    part: slice

    @property
    def encoded(self) -> list[np.ndarray]:
        """The bytes of its images."""
        return self.batch.encoded[self.part]

    @property
    def positions(self) -> np.ndarray:
        """The places of its images in the planned batch."""
        return self.batch.positions[self.part]

    @property
    def is_first(self) -> bool:
        """Whether a batch begins with it, or begins again after `repair`."""
        return self.part.start == 0

    @property
    def is_last(self) -> bool:
        """Whether the batch is complete after it."""
        return self.part.stop == len(self.batch.positions)


class StreamPool:
    """Makes DALI streams, and keeps an idle one for the next epoch, as building one takes 5 ms and more on a GPU."""

    def __init__(self, device: torch.device, *, batch_size: int, num_threads: int, hw_decoder_load: float) -> None:
        self.batch_size, self.num_threads, self.hw_decoder_load = batch_size, num_threads, hw_decoder_load
        on_gpu = device.type == "cuda"
        self.device: dict[str, Any] = {
            "device": "gpu" if on_gpu else "cpu",
            "device_id": device.index if on_gpu else None,
        }
        self._idle: dict[int, list[pipelines.Stream]] = {}  # by process: a forked child lacks its parent's threads

    def acquire(self) -> pipelines.Stream | None:
        """The idle stream of this process, if there is one."""
        with contextlib.suppress(IndexError):
            return self._of_this_process().pop()
        return None

    def release(self, stream: pipelines.Stream) -> None:
        """Keeps a stream without work for `acquire`; a second one is let go."""
        if not self._of_this_process():
            self._of_this_process().append(stream)

    def create(self, first: Sequence[pipelines.Encoded]) -> pipelines.Stream:
        """A new stream, at work on its first batches."""
        return pipelines.Stream(
            first,
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            hw_decoder_load=self.hw_decoder_load,
            **self.device,
        )

    def undecodable(self, encoded: pipelines.Encoded) -> list[int]:
        """The places of the images that do not decode."""
        return pipelines.undecodable(encoded, **self.device)

    def _of_this_process(self) -> list[pipelines.Stream]:
        return self._idle.setdefault(os.getpid(), [])


class DaliDecoder:
    """Decodes the batches of one epoch in order.

    `repair` is called with a batch and the places of images that DALI failed to decode, and returns a batch without
    them; that batch is then decoded from its first chunk on.
    """

    def __init__(self, streams: StreamPool, headers: ImageHeaders, repair: Repair) -> None:
        self.streams, self.headers, self.repair = streams, headers, repair
        self.stream = streams.acquire()
        self.waiting: deque[Chunk] = deque()
        self.decoding: deque[Chunk] = deque()
        self.error: FastpetsError | None = None

    def __enter__(self) -> DaliDecoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What DALI is at work on must end before its bytes are freed. When Python exits, DALI may be gone already.
        with contextlib.suppress(RuntimeError, AttributeError, StopIteration):
            for chunk in self.decoding:
                self._take(chunk)
        # Only a stream whose epoch is complete is known to be in order: an interrupt may come between any two lines.
        if kind is None and self.stream is not None:
            self.streams.release(self.stream)

    def decode(self, batches: Iterator[EncodedBatch]) -> Iterator[tuple[Chunk, list[torch.Tensor]]]:
        """Yields each chunk with its images, (H, W, 3) uint8, on the device.

        An error of `batches` is raised after what precedes it.
        """
        self._fill(batches)
        while self.decoding:
            chunk = self.decoding[0]
            try:
                images = list(map(torch.from_dlpack, self._take(chunk)))
            except RuntimeError:
                self._recover(batches)
                continue
            self.decoding.popleft()
            self._fill(batches)  # before the caller warps these, so that DALI is at work meanwhile
            yield chunk, images
        if self.error is not None:
            raise self.error

    def _take(self, chunk: Chunk) -> list[Any]:
        """DALI's images of the oldest chunk, as DLPack capsules."""
        return self.stream.take() if self.stream is not None and chunk.encoded else []

    def _fill(self, batches: Iterator[EncodedBatch]) -> None:
        """Gives DALI chunks until DECODE_AHEAD are in its queue."""
        new: list[Chunk] = []
        while len(self.decoding) + len(new) < DECODE_AHEAD and self.error is None:
            if self.waiting:
                new.append(self.waiting.popleft())
                continue
            try:
                batch = next(batches, None)
            except FastpetsError as error:
                self.error = error
                break
            if batch is None:
                break
            self.waiting.extend(self._chunks(batch))
        to_decode = [chunk.encoded for chunk in new if chunk.encoded]
        if self.stream is None and to_decode:
            self.stream = self.streams.create(to_decode)
        elif self.stream is not None:
            for encoded in to_decode:
                self.stream.put(encoded)
        self.decoding.extend(new)

    def _chunks(self, batch: EncodedBatch) -> list[Chunk]:
        """Splits a batch so that the decoded images of a chunk take at most CHUNK_BYTES per thread; none if empty."""
        if len(batch.planned.ids) == 0:
            return []
        ids = batch.planned.ids[batch.positions]
        num_bytes = 3 * self.headers.heights[ids].astype(np.int64) * self.headers.widths[ids]
        parts = slices_by_size(num_bytes, CHUNK_BYTES * self.streams.num_threads) or [slice(0, 0)]
        return [Chunk(batch, part) for part in parts]

    def _recover(self, batches: Iterator[EncodedBatch]) -> None:
        """Repairs the batch of the chunk that failed, and decodes it and all that follows with a new stream."""
        self.stream = None
        failed = self.decoding[0]
        rejected = [failed.part.start + place for place in self.streams.undecodable(failed.encoded)]
        if not rejected:
            raise RuntimeError("DALI failed on a batch, but on none of its images alone: is memory short?")
        others = [chunk for chunk in (*self.decoding, *self.waiting) if chunk.batch is not failed.batch]
        self.waiting = deque([*self._chunks(self.repair(failed.batch, rejected)), *others])
        self.decoding.clear()
        self._fill(batches)


def slices_by_size(sizes: np.ndarray, limit: int) -> list[slice]:
    """Splits the sizes (N,) into consecutive slices whose sums are at most `limit`; a larger size is a slice alone."""
    slices, start, total = [], 0, 0
    for place, size in enumerate(sizes.tolist()):
        if place > start and total + size > limit:
            slices.append(slice(start, place))
            start, total = place, 0
        total += size
    return [*slices, slice(start, len(sizes))] if len(sizes) else []

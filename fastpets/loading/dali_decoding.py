"""The decode stage: decodes batches chunk by chunk in one DALI pipeline, ahead of their use."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fastpets import kernels, pipelines
from fastpets.data.headers import ImageHeaders
from fastpets.errors import FastpetsError
from fastpets.loading.dali_reading import EncodedBatch
from fastpets.loading.memory_cache import free_bytes

DECODE_AHEAD = 2  # chunks in DALI's queue
CHUNK_BYTES = 2**27  # of decoded images, per thread: a batch of large images is decoded in chunks
# The part of a GPU's free memory that a chunk may take, of which two are being decoded and one or two warped.
CHUNK_SHARE = 1 / 32

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
        """The positions of its images in the planned batch."""
        return self.batch.positions[self.part]

    @property
    def is_first(self) -> bool:
        """Whether a batch begins with it, or begins again after `repair`."""
        return self.part.start == 0

    @property
    def is_last(self) -> bool:
        """Whether the batch is complete after it."""
        return self.part.stop == len(self.batch.positions)


class PipelinePool:
    """Makes DALI pipelines, and keeps an idle one for the next epoch: building one takes 5 ms, and more on a GPU.

    `largest` is the height and width of the largest image.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        batch_size: int,
        num_threads: int,
        hw_decoder_load: float,
        largest: tuple[int, int],
    ) -> None:
        self.device = device
        self.batch_size, self.num_threads, self.hw_decoder_load = batch_size, num_threads, hw_decoder_load
        self.largest = largest
        on_gpu = device.type == "cuda"
        self.device_arguments: dict[str, Any] = {
            "device": "gpu" if on_gpu else "cpu",
            "device_id": device.index if on_gpu else None,
        }
        self._idle: dict[int, list[pipelines.DecodePipeline]] = {}  # by process: a forked child lacks its threads

    @functools.cached_property
    def chunk_bytes(self) -> int:
        """The most that the decoded images of a chunk take, unless it is one larger image."""
        limit = CHUNK_BYTES * self.num_threads
        if (index := self.device_arguments["device_id"]) is None:
            return limit
        # Read once: later, torch's allocator holds memory for training, and DALI holds that of earlier chunks.
        return min(limit, max(CHUNK_BYTES, int(CHUNK_SHARE * free_bytes(torch.device("cuda", index)))))

    def acquire(self) -> pipelines.DecodePipeline | None:
        """The idle pipeline of this process, if there is one."""
        with contextlib.suppress(IndexError):
            return self._of_this_process().pop()
        return None

    def release(self, pipeline: pipelines.DecodePipeline) -> None:
        """Keeps a pipeline without work for `acquire`; a second one is let go."""
        if not self._of_this_process():
            self._of_this_process().append(pipeline)

    def create(self, first: Sequence[pipelines.Encoded]) -> pipelines.DecodePipeline:
        """A new pipeline that decodes its first batches."""
        return pipelines.DecodePipeline(
            first,
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            hw_decoder_load=self.hw_decoder_load,
            hints=pipelines.memory_hints(
                *self.largest,
                num_threads=self.num_threads,
                num_in_hardware=math.ceil(self.hw_decoder_load * self.batch_size),
                max_bytes=self.chunk_bytes,
            ),
            **self.device_arguments,
        )

    def give_back_memory(self) -> None:
        """Lets go of the idle pipeline, and returns the memory that DALI keeps for pipelines to come."""
        if self._of_this_process():
            self._of_this_process().clear()
            pipelines.release_unused_memory()

    def _of_this_process(self) -> list[pipelines.DecodePipeline]:
        return self._idle.setdefault(os.getpid(), [])


class DaliDecoder:
    """Decodes the batches of one epoch in order.

    `repair` is called with a batch and the indices, in `encoded`, of the images that DALI does not decode on a CPU,
    when decoding the batch has failed. It returns the batch with these decoded by Pillow, replaced or left out; all its
    chunks are then decoded again, once. Whatever else fails, in DALI, in CUDA or for lack of memory, is no fault of an
    image, and is raised.
    """

    def __init__(self, pool: PipelinePool, headers: ImageHeaders, repair: Repair) -> None:
        self.pool, self.headers, self.repair = pool, headers, repair
        self.pipeline = pool.acquire()
        self.waiting: deque[Chunk] = deque()
        self.decoding: deque[Chunk] = deque()
        self.repaired: EncodedBatch | None = None  # the latest one
        self.error: FastpetsError | None = None

    def __enter__(self) -> DaliDecoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # DALI must be done with the bytes before they are freed. When Python exits, DALI may be gone already.
        with contextlib.suppress(RuntimeError, AttributeError, StopIteration):
            for chunk in self.decoding:
                self._take(chunk)
        # Only after a complete epoch is the pipeline known to be empty: an interrupt may come between any two lines.
        if kind is None and self.pipeline is not None:
            self.pool.release(self.pipeline)

    def decode(self, batches: Iterator[EncodedBatch]) -> Iterator[tuple[Chunk, Sequence[torch.Tensor]]]:
        """Yields each chunk with its images, (H, W, 3) uint8, on the device.

        A FastpetsError from `batches` is raised after all earlier chunks were yielded. Raises torch.OutOfMemoryError,
        and RuntimeError for another failure of DALI or CUDA.
        """
        self._fill(batches)
        while self.decoding:
            chunk, problem = self.decoding[0], ""
            try:
                images = self._take(chunk)
                if not self._have_expected_sizes(chunk, images):
                    problem = "images of other sizes than their headers have"
            except pipelines.UndecodableError as error:
                problem = str(error)
            if problem:  # outside the handler, in which the traceback keeps the pipeline and its memory
                self._recover(batches, problem)
                continue
            self.decoding.popleft()
            self._fill(batches)  # before the caller warps these, so that DALI is at work meanwhile
            yield chunk, images
        if self.error is not None:
            raise self.error

    def _take(self, chunk: Chunk) -> Sequence[torch.Tensor]:
        """DALI's images of `chunk`, the oldest in the queue, in its memory."""
        if self.pipeline is None or not chunk.encoded:
            return []
        block, sizes = self.pipeline.take()
        num_bytes = 3 * sizes.prod(axis=1)
        return kernels.PackedImages(torch.from_dlpack(block), np.cumsum(num_bytes) - num_bytes, sizes)

    def _have_expected_sizes(self, chunk: Chunk, images: Sequence[torch.Tensor]) -> bool:
        """Whether DALI decoded the images of a chunk to the sizes that their headers have."""
        if not isinstance(images, kernels.PackedImages):
            return True
        return np.array_equal(images.sizes, self.headers.stored_sizes(chunk.batch.planned.ids[chunk.positions]))

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
        if self.pipeline is None and to_decode:
            self.pipeline = self.pool.create(to_decode)
        elif self.pipeline is not None:
            for encoded in to_decode:
                self.pipeline.put(encoded)
        self.decoding.extend(new)

    def _chunks(self, batch: EncodedBatch) -> list[Chunk]:
        """Splits a batch so that the decoded images of a chunk take at most `chunk_bytes`; none if empty."""
        if len(batch.planned.ids) == 0:
            return []
        ids = batch.planned.ids[batch.positions]
        num_bytes = 3 * self.headers.heights[ids].astype(np.int64) * self.headers.widths[ids]
        parts = slices_by_size(num_bytes, self.pool.chunk_bytes) or [slice(0, 0)]
        return [Chunk(batch, part) for part in parts]

    def _recover(self, batches: Iterator[EncodedBatch], problem: str) -> None:
        """Repairs the batch of the chunk that failed, and decodes it and all that follow with a new pipeline.

        Raises RuntimeError if no image of the batch is to blame.
        """
        self.pipeline = None
        if self.pool.device.type == "cuda":
            torch.cuda.synchronize(self.pool.device)  # raises CUDA's own error, if that is why decoding failed
        failed = self.decoding[0].batch
        repaired = failed if failed is self.repaired else self._repaired(failed)
        if repaired is failed:
            raise RuntimeError(
                f"DALI failed to decode {len(failed.encoded)} images on {self.pool.device} ({problem}), and decodes "
                "each of them on the CPU; if memory is short, lower batch_size, num_workers or cache_gb"
            )
        others = [chunk for chunk in (*self.decoding, *self.waiting) if chunk.batch is not failed]
        self.waiting = deque([*self._chunks(repaired), *others])
        self.decoding.clear()
        self.repaired = repaired
        self._fill(batches)

    def _repaired(self, batch: EncodedBatch) -> EncodedBatch:
        """The batch repaired until DALI decodes all its images on the CPU; the same one if it does so already."""
        checked: list[np.ndarray] = []
        while True:
            seen = {id(encoded) for encoded in checked}
            new = [index for index, encoded in enumerate(batch.encoded) if id(encoded) not in seen]
            sizes = self.headers.stored_sizes(batch.planned.ids[batch.positions[new]])
            undecodable = pipelines.undecodable([batch.encoded[index] for index in new], sizes)
            if not undecodable:
                return batch
            checked = batch.encoded
            batch = self.repair(batch, [new[index] for index in undecodable])


def slices_by_size(sizes: np.ndarray, limit: int) -> list[slice]:
    """Splits the sizes (N,) into consecutive slices whose sums are at most `limit`; a larger size is a slice alone."""
    slices, start, total = [], 0, 0
    for i, size in enumerate(sizes.tolist()):
        if i > start and total + size > limit:
            slices.append(slice(start, i))
            start, total = i, 0
        total += size
    return [*slices, slice(start, len(sizes))] if len(sizes) else []

"""The engine for a GPU: DALI decodes a batch, then one kernel warps it. On a CPU it rehearses what a GPU does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterable, Sequence

import numpy as np
import torch

from fastpets.data import storage
from fastpets.data.headers import DALI, DEEP, PILLOW, ImageHeaders
from fastpets.loading.bad_files import BadFiles
from fastpets.loading.buffers import Buffers
from fastpets.loading.cache import Cache
from fastpets.loading.cached_images import Copies, keep
from fastpets.loading.dali_decoding import DaliDecoder, PipelinePool
from fastpets.loading.dali_reading import EncodedBatch, Reader
from fastpets.loading.engine import LoadedBatch, started_ahead
from fastpets.loading.planning import PlannedBatch, Planner
from fastpets.loading.pool import Pool
from fastpets.loading.warping import DecodedImages, HeldImages, images_in_order, shrink, warp
from fastpets.utils.system import give_back_freed_memory

READ_AHEAD = 2  # batches
MIN_READERS = 4  # threads that read for a GPU, if there are as many
MAX_PILLOW_SHARE = 0.01  # of the images, which MIN_READERS decode: 300 of 30,000 per second, in about 10 ms each


class DaliEngine:
    """Decodes with DALI, in chunks of bounded memory, then warps each batch on the device."""

    def __init__(
        self,
        paths: Sequence[str],
        headers: ImageHeaders,
        bad_files: BadFiles,
        cache: Cache | None,
        num_threads: int,
        *,
        device: torch.device,
        batch_size: int,
        hw_decoder_load: float,
    ) -> None:
        self.paths, self.headers, self.bad_files, self.cache = paths, headers, bad_files, cache
        self.device, self.num_threads = device, num_threads
        self.buffers = Buffers(device)
        self.pipelines = PipelinePool(
            device,
            batch_size=batch_size,
            num_threads=num_threads,
            hw_decoder_load=hw_decoder_load,
            largest=largest_size(headers),
        )

    @functools.cached_property
    def copies(self) -> Copies:
        """Made at the first epoch, since its stream starts CUDA. An epoch takes it once, as threads may race here."""
        return Copies(self.device)

    def run(self, batches: Iterable[PlannedBatch], planner: Planner) -> Generator[LoadedBatch]:
        """Reads, decodes and warps, each stage ahead of the next.

            PlannedBatch --read--> EncodedBatch --decode--> Chunk, images --shrink, warp--> (B, H, W, 3)
                       |                      |                         |
             threads of the pool       DALI's threads or GPU      threads of the pool, or
             READ_AHEAD batches        DECODE_AHEAD chunks        one copy, two launches

        When a batch has been read, the pool also composes its transforms. A cached image skips the first two stages. A
        file that DALI rejects goes back to `read`, for Pillow to decode.
        """
        yield from self._run(batches, planner)
        if self.cache is not None and self._num_left_to_decode() < self.pipelines.batch_size:
            self.pipelines.give_back_memory()

    def _run(self, batches: Iterable[PlannedBatch], planner: Planner) -> Generator[LoadedBatch]:
        decoded: list[DecodedImages] = []  # of one batch
        with contextlib.ExitStack() as stack:
            stack.callback(give_back_freed_memory)
            pool = Pool(num_readers(self.paths, self.headers, self.num_threads, self.device))
            copies = self.copies
            reader = Reader(pool, self.paths, self.headers, self.cache, self.bad_files, planner, copies)
            decoder = stack.enter_context(DaliDecoder(self.pipelines, self.headers, reader.read_with_pillow))
            held = stack.enter_context(HeldImages(self.device))
            stack.callback(copies.wait)  # of images that the caller no longer wants
            stack.callback(pool.shutdown, cancel_futures=True)
            encoded = map(reader.finish, started_ahead(batches, reader.start, READ_AHEAD))
            for chunk, images in decoder.decode(encoded):
                transforms = chunk.batch.transforms.result()
                if chunk.is_first:
                    decoded.clear()
                shrunk = shrink(pool, images, transforms.shrink[chunk.positions])
                held.hold(images)
                decoded.append(DecodedImages(chunk.positions, shrunk))
                if chunk.is_last:
                    cached = DecodedImages(chunk.batch.cached.positions, chunk.batch.cached.on(copies))
                    loaded = self._warped(pool, chunk.batch, [*decoded, cached], planner)
                    self._keep(pool, chunk.batch, decoded)
                    held.hold([part.images for part in decoded])  # a list of its own
                    decoded.clear()
                    del images, shrunk, chunk, cached  # they would stay in memory while the caller has the batch
                    yield loaded

    def _warped(self, pool: Pool, batch: EncodedBatch, parts: Sequence[DecodedImages], planner: Planner) -> LoadedBatch:
        """Warps the images of a batch, of which `parts` are decoded and cached."""
        ids, preprocessing = batch.planned.ids, planner.preprocessing
        images = images_in_order(parts, len(ids))
        out = self.buffers.empty((len(ids), *preprocessing.size, 3), getattr(torch, preprocessing.dtype))
        labels = warp(pool, images, planner.labels[ids], batch.transforms.result(), preprocessing, out)
        return LoadedBatch(batch.planned, out, labels)

    def _keep(self, pool: Pool, batch: EncodedBatch, decoded: Sequence[DecodedImages]) -> None:
        """Puts decoded images into the cache."""
        if self.cache is not None:
            for positions, images in decoded:
                keep(pool, self.cache, batch.planned.ids[positions], images)

    def _num_left_to_decode(self) -> int:
        """The number of good images that are not in the cache."""
        assert self.cache is not None
        return int((~self.cache.filled & ~self.bad_files.known(np.arange(len(self.paths)))).sum())


def num_readers(paths: Sequence[str], headers: ImageHeaders, num_threads: int, device: torch.device) -> int:
    """The threads that read files and, on a CPU, warp images; DALI has `num_threads` besides.

    Reading and checking a file takes 32 us, 10 of them with the GIL (bench/gil.py; EPYC, files of 100 KB in the
    system's cache), so that three threads keep the GIL busy, and more compete with the thread that launches kernels.
    Waiting for remote files and decoding by Pillow need no GIL.
    """
    needs_pillow = np.isin(headers.decoders, (PILLOW, DEEP)).mean() > MAX_PILLOW_SHARE
    if device.type == "cpu" or needs_pillow or storage.is_remote(paths[0]):
        return num_threads
    return min(num_threads, max(MIN_READERS, num_threads // 4))


def largest_size(headers: ImageHeaders) -> tuple[int, int]:
    """Height and width of the image of most pixels that DALI decodes; (0, 0) if there is none."""
    pixels = np.where(headers.decoders == DALI, headers.heights.astype(np.int64) * headers.widths, 0)
    i = int(pixels.argmax())
    return (int(headers.heights[i]), int(headers.widths[i])) if pixels[i] else (0, 0)

"""The engine for a GPU: DALI decodes a batch, then one kernel warps it. On a CPU it rehearses what a GPU does."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence

import torch

from fastpets.data.headers import ImageHeaders
from fastpets.loading.bad_files import BadFiles
from fastpets.loading.buffers import Buffers
from fastpets.loading.cache import Cache
from fastpets.loading.dali_decoding import DaliDecoder, PipelinePool
from fastpets.loading.dali_reading import Reader
from fastpets.loading.engine import started_ahead
from fastpets.loading.planning import PlannedBatch, Planner
from fastpets.loading.pool import Pool
from fastpets.loading.warping import DecodedImages, HeldImages, shrink, warp
from fastpets.utils.system import give_back_freed_memory

READ_AHEAD = 2  # batches


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
            device, batch_size=batch_size, num_threads=num_threads, hw_decoder_load=hw_decoder_load
        )

    def run(self, batches: Iterable[PlannedBatch], planner: Planner) -> Generator[tuple[PlannedBatch, torch.Tensor]]:
        """Reads, decodes and warps, each stage ahead of the next.

            PlannedBatch --read--> EncodedBatch --decode--> Chunk, images --shrink, warp--> (B, H, W, 3)
                       |                      |                         |
             threads of the pool       DALI's threads or GPU      threads of the pool, or
             READ_AHEAD batches        DECODE_AHEAD chunks        one launch on the GPU

        When a batch has been read, the pool also composes its transforms. A cached image skips the first two stages. A
        file that DALI rejects goes back to `read`, for Pillow to decode.
        """
        preprocessing = planner.preprocessing
        dtype = getattr(torch, preprocessing.dtype)
        decoded: list[DecodedImages] = []  # of one batch
        with contextlib.ExitStack() as stack:
            stack.callback(give_back_freed_memory)
            pool = Pool(self.num_threads)
            reader = Reader(pool, self.paths, self.headers, self.cache, self.bad_files, planner, self.device)
            decoder = stack.enter_context(DaliDecoder(self.pipelines, self.headers, reader.read_with_pillow))
            held = stack.enter_context(HeldImages(self.device))
            stack.callback(pool.shutdown, cancel_futures=True)
            encoded = map(reader.finish, started_ahead(batches, reader.start, READ_AHEAD))
            for chunk, images in decoder.decode(encoded):
                planned, transforms = chunk.batch.planned, chunk.batch.transforms.result()
                if chunk.is_first:
                    decoded.clear()
                shrunk = shrink(pool, images, transforms.shrink[chunk.positions])
                held.hold(images)
                decoded.append(DecodedImages(chunk.positions, shrunk))
                if chunk.is_last:
                    out = self.buffers.empty((len(planned.ids), *preprocessing.size, 3), dtype)
                    warp(
                        pool,
                        planned.ids,
                        transforms,
                        decoded,
                        chunk.batch.cached,
                        self.cache,
                        out,
                        preprocessing.borders,
                    )
                    held.hold([part.images for part in decoded])  # a list of its own
                    decoded.clear()
                    del images, shrunk, chunk  # they would stay in memory while the caller has the batch
                    yield planned, out

"""The engine for a CPU: each thread reads, decodes, shrinks and warps one image at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from fastpets import kernels
from fastpets.augment import lookup_tables
from fastpets.data.headers import ImageHeaders
from fastpets.kernels.warp_cpu import as_integers, warp_image
from fastpets.loading.bad_files import BadFiles, ChangedImageError, UnusableImageError
from fastpets.loading.buffers import Buffers
from fastpets.loading.cache import Cache
from fastpets.loading.decoding import Scratch, load
from fastpets.loading.engine import LoadedBatch, started_ahead
from fastpets.loading.planning import PlannedBatch, Planner
from fastpets.loading.pool import Pool, even_slices
from fastpets.utils.system import give_back_freed_memory
from fastpets.utils.validation import Decode

WORK_AHEAD = 2  # batches
IMAGES_PER_TASK = 8  # fewer cost more to manage; with more, threads wait longer for the last task of an epoch

Problems = dict[int, UnusableImageError]  # what is wrong with images, by their positions in the batch


class StartedBatch(NamedTuple):
    """A planned batch whose images are being written to `images` (B, H, W, 3) by `tasks`."""

    planned: PlannedBatch
    images: torch.Tensor
    tasks: list[Future[Problems]]


class CpuEngine:
    """Reads, decodes, shrinks and warps each image in one thread, one after the other, in memory that it reuses."""

    def __init__(
        self,
        paths: Sequence[str],
        headers: ImageHeaders,
        bad_files: BadFiles,
        cache: Cache | None,
        num_threads: int,
        *,
        decode: Decode,
    ) -> None:
        self.paths, self.headers, self.bad_files, self.cache = paths, headers, bad_files, cache
        self.num_threads, self.decode = num_threads, decode
        self.buffers = Buffers(torch.device("cpu"))

    def run(self, batches: Iterable[PlannedBatch], planner: Planner) -> Generator[LoadedBatch]:
        """Has the threads of a pool make whole batches, WORK_AHEAD of them ahead of the caller.

            PlannedBatch --> tasks of IMAGES_PER_TASK images --> transforms, then for each image
                             read, decode, shrink, warp --> (B, H, W, 3)

        A cached image is only warped. Bad files are dealt with when their batch is due.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(give_back_freed_memory)
            pool = Pool(self.num_threads)
            stack.callback(pool.shutdown, cancel_futures=True)
            scratch = Scratch()
            for started in started_ahead(batches, partial(self._start, pool, planner, scratch), WORK_AHEAD):
                planned, images = self._finish(started, planner, scratch)
                del started  # the caller alone keeps the images in memory
                if len(planned.ids):
                    yield LoadedBatch(planned, images, torch.from_numpy(planner.labels[planned.ids]))
                del images

    def _start(self, pool: Pool, planner: Planner, scratch: Scratch, planned: PlannedBatch) -> StartedBatch:
        """Has the pool make a batch."""
        count, preprocessing = len(planned.ids), planner.preprocessing
        images = self.buffers.empty((count, *preprocessing.size, 3), getattr(torch, preprocessing.dtype))
        is_cached = self.cache is not None and self.cache.has(planned.ids).all()
        num_tasks = self.num_threads if is_cached else -(-count // IMAGES_PER_TASK)
        make = partial(self._make, planned, images, planner, scratch)
        return StartedBatch(planned, images, [pool.submit(make, part) for part in even_slices(count, num_tasks)])

    def _make(
        self, planned: PlannedBatch, images: torch.Tensor, planner: Planner, scratch: Scratch, part: slice
    ) -> Problems:
        """Makes the images at positions `part` of a batch, in this thread. Returns what is wrong with the others."""
        composed = planner.transforms(planned.ids[part], planned.occurrences[part])
        matrices, samples, spreads, adjustments, factors = composed
        luts = lookup_tables.luts(adjustments, planner.preprocessing.normalization)
        luts_as_integers = as_integers(kernels.converted(luts, images.dtype))
        arguments = zip(matrices, samples, spreads, luts_as_integers, as_integers(images[part]), strict=True)
        problems: Problems = {}
        for position, by, of_image in zip(range(part.start, part.stop), factors.tolist(), arguments, strict=True):
            try:
                image = self._image(int(planned.ids[position]), by, scratch)
            except UnusableImageError as problem:
                problems[position] = problem
            else:
                warp_image(image, *of_image, planner.preprocessing.borders)
        return problems

    def _image(self, i: int, factors: Sequence[int], scratch: Scratch) -> np.ndarray:
        """Item `i` as stored, divided by `factors` in height and width, from the cache or in memory of this thread."""
        size = self.headers.stored_size(i)
        if self.cache is not None:
            cached = self.cache.get(i, scratch.shrunk.image(size[0] // factors[0], size[1] // factors[1]))
            if cached is not None:
                return cached
        image = load(self.paths[i], size, factors, scratch, self.decode)
        if self.cache is not None:
            self.cache.put(i, torch.from_numpy(image))
        return image

    def _finish(self, started: StartedBatch, planner: Planner, scratch: Scratch) -> tuple[PlannedBatch, torch.Tensor]:
        """Waits for a batch; reports its bad files, and leaves them out or replaces them."""
        planned, images, tasks = started
        problems: Problems = {}
        wait(tasks)  # waiting for one after another would wake this thread for each
        for task in tasks:
            problems |= task.result()
        for position in [each for each, problem in problems.items() if isinstance(problem, ChangedImageError)]:
            if self.headers.read_again(int(planned.ids[position]), planner.preprocessing.max_pixels):
                del problems[position]
                problems |= self._make(planned, images, planner, scratch, slice(position, position + 1))
        if not problems:
            return planned, images
        self.bad_files.report({int(planned.ids[position]): str(problem) for position, problem in problems.items()})
        if not self.bad_files.replaces:
            is_good = np.ones(len(planned.ids), bool)
            is_good[list(problems)] = False
            # NumPy copies: torch would use OpenMP, which hangs in a forked process whose parent used it.
            return planned.select(is_good), torch.from_numpy(as_integers(images)[is_good]).view(images.dtype)
        for position in problems:
            planned = self._replace(planned, position, images, planner, scratch)
        return planned, images

    def _replace(
        self, planned: PlannedBatch, position: int, images: torch.Tensor, planner: Planner, scratch: Scratch
    ) -> PlannedBatch:
        """The batch with the next good image at `position`, and that image in `images`."""
        bad = int(planned.ids[position])
        while True:
            other = self.bad_files.replacement_for(bad)
            planned = planned.with_replacement(position, other)
            problems = self._make(planned, images, planner, scratch, slice(position, position + 1))
            if not problems:
                return planned
            self.bad_files.report({other: str(problems[position])})

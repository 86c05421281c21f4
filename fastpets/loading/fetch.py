"""Batches on their way to the decoder: their files are read ahead, their draws made, their bad files dealt with."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastpets.augment.transforms import Transforms, transforms
from fastpets.loading.assemble import slices
from fastpets.loading.order import occurrences
from fastpets.loading.position import Course
from fastpets.loading.reading import UnusableImage, read_encoded

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader

READING = 2  # batches whose files are read ahead
REPLACES = 0x8000  # set in the occurrence count of an image that takes another's place, so that its draws are its own

File = np.ndarray | UnusableImage  # its bytes, or why there are none


class Request(NamedTuple):
    """A batch whose files are being read: ids and occurrences (B,), and a future for each part of those files that must
    be decoded; `wanted` (M,) are their positions in the batch. `end` is where the epoch's order is after it."""

    ids: np.ndarray
    occurrences: np.ndarray
    wanted: np.ndarray
    files: list[Future[list[File]]]
    end: int


class Ready(NamedTuple):
    """A batch whose files are read and can go to the decoder: M of its B images, the others are in the cache."""

    ids: np.ndarray
    occurrences: np.ndarray
    wanted: np.ndarray
    encoded: list[np.ndarray]
    end: int
    transforms: Transforms


class Fetcher:
    """The batches of a course, in order, as the decoder takes them; a pool's threads read files ahead."""

    def __init__(self, loader: Loader, course: Course, pool: ThreadPoolExecutor) -> None:
        self.loader, self.course, self.pool = loader, course, pool
        self.occurrences = occurrences(course.ids) if loader.position.sampler is not None else None
        self.batches = deque(course.batches)
        self.reading: deque[Request] = deque()

    def read_ahead(self) -> None:
        """Has as many batches' files read as intended."""
        while self.batches and len(self.reading) < READING:
            self.reading.append(self._request(self.batches.popleft()))

    def next(self) -> Ready | None:
        """The next batch, which may be empty if all of it is bad, or None after the last."""
        self.read_ahead()
        if not self.reading:
            return None
        request = self.reading.popleft()
        files = [file for part in request.files for file in part.result()]
        self.read_ahead()
        return self.settle(request, files)

    def settle(self, request: Request | Ready, files: Sequence[File]) -> Ready:
        """The batch without the images that cannot be used, which are reported, or with others in their place."""
        ids, count, wanted = request.ids, request.occurrences, request.wanted
        encoded = list(files)
        kept = np.ones(len(ids), bool)
        bad = [place for place, file in enumerate(encoded) if isinstance(file, UnusableImage)]
        if bad:
            self.loader.report_bad_files({int(ids[wanted[place]]): str(encoded[place]) for place in bad})
        for place in bad:
            position = wanted[place]
            if self.loader.on_bad_file == "replace":
                ids[position], encoded[place] = self._stand_in(int(ids[position]))
                count[position] |= REPLACES
            else:
                kept[position] = False
        good = [file for file in encoded if isinstance(file, np.ndarray)]
        wanted = (np.cumsum(kept) - 1)[wanted[kept[wanted]]]
        ids, count = ids[kept], count[kept]
        return Ready(ids, count, wanted, good, request.end, transforms_of(self.loader, ids, count, self.course.number))

    def read(self, ids: np.ndarray) -> list[File]:
        """The files of the items, each as bytes that can be decoded."""
        paths, headers = self.loader.dataset.paths, self.loader.headers
        encoded: list[File] = []
        for i in ids:
            facts = int(headers.decoders[i]), int(headers.heights[i]), int(headers.widths[i])
            try:
                encoded.append(read_encoded(paths[i], *facts))
            except UnusableImage as problem:
                encoded.append(problem)
        return encoded

    def _request(self, batch: slice) -> Request:
        """A batch whose files begin to be read, less those that were found bad before."""
        loader, ids = self.loader, self.course.ids[batch].copy()
        count = np.zeros_like(ids) if self.occurrences is None else self.occurrences[batch].copy()
        known_bad = ~loader.usable[ids]
        if known_bad.any():
            if loader.on_bad_file == "replace":
                ids[known_bad] = [loader.next_usable(i) for i in ids[known_bad].tolist()]
                count[known_bad] |= REPLACES
            else:
                ids, count = ids[~known_bad], count[~known_bad]
        wanted = np.arange(len(ids)) if loader.cache is None else np.flatnonzero(~loader.cache.filled[ids])
        # A part for each thread, not a future for each file: those cost 2% of the loader's time on two cores.
        parts = [wanted[part] for part in slices(len(wanted), loader.num_workers)]
        files = [self.pool.submit(self.read, ids[part]) for part in parts]
        return Request(ids, count, wanted, files, batch.stop)

    def _stand_in(self, i: int) -> tuple[int, File]:
        """The next item after `i` that can be used, and its file."""
        while True:
            other = self.loader.next_usable(i)
            (file,) = self.read(np.array([other]))
            if isinstance(file, np.ndarray):
                return other, file
            self.loader.report_bad_files({other: str(file)})


def transforms_of(loader: Loader, ids: np.ndarray, occurrences: int | np.ndarray, epoch: int) -> Transforms:
    """What a loader has done to images (B,) in an epoch."""
    return transforms(
        ids,
        loader.headers.heights[ids],
        loader.headers.widths[ids],
        loader.preprocessing,
        shrink_for=loader.shrink_for,
        augment=loader.augment,
        seed=loader.position.seed,
        epoch=epoch,
        occurrences=occurrences,
    )

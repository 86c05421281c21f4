"""The read stage: reads files ahead, checks that their bytes are safe to decode, drops or replaces bad ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from fastpets import pipelines
from fastpets.augment.transforms import Transforms
from fastpets.data import jpeg, storage
from fastpets.data.headers import DALI, ImageHeaders
from fastpets.data.image import decode_stored_rgb
from fastpets.errors import reason
from fastpets.loading.bad_files import BadFiles, ChangedImageError, UnusableImageError
from fastpets.loading.buffers import Buffers
from fastpets.loading.cache import Cache
from fastpets.loading.cached_images import CachedImages, Copies
from fastpets.loading.planning import PlannedBatch, Planner
from fastpets.loading.pool import Pool

TYPICAL_BYTES = 2**17  # of a file
BLOCKS_PER_THREAD = 12  # two for its share of each batch that is being read, waits or is being decoded

EncodedOrError = np.ndarray | UnusableImageError  # a file's bytes, (n,) uint8, or what is wrong with it


class PendingBatch(NamedTuple):
    """A planned batch whose files are being read.

    `positions` (M,) are those in the batch that must be decoded. `files` are futures of consecutive shares of these M
    files. `cached` are the other images.
    """

    planned: PlannedBatch
    positions: np.ndarray
    files: list[Future[list[EncodedOrError]]]
    cached: CachedImages


class EncodedBatch(NamedTuple):
    """A planned batch of good files: the `encoded` bytes, each (n,) uint8, of the images at its `positions` (M,).

    `cached` are the other images. A thread of the pool computes the `transforms` of the whole batch, while earlier
    batches are decoded and warped.
    """

    planned: PlannedBatch
    positions: np.ndarray
    encoded: list[np.ndarray]
    cached: CachedImages
    transforms: Future[Transforms]


class Reader:
    """Reads the files of planned batches with the threads of a pool; drops or replaces bad ones."""

    def __init__(
        self,
        pool: Pool,
        paths: Sequence[str],
        headers: ImageHeaders,
        cache: Cache | None,
        bad_files: BadFiles,
        planner: Planner,
        copies: Copies,
    ) -> None:
        self.pool, self.paths, self.headers, self.copies = pool, paths, headers, copies
        self.cache, self.bad_files, self.planner = cache, bad_files, planner
        self.buffers = Buffers(torch.device("cpu"), BLOCKS_PER_THREAD * pool.num_threads)

    def start(self, planned: PlannedBatch) -> PendingBatch:
        """Has the pool read the images that are in the cache, and the files of the others."""
        is_cached = np.zeros(len(planned.ids), bool) if self.cache is None else self.cache.has(planned.ids)
        positions = np.flatnonzero(~is_cached)
        ids = planned.ids[positions]
        files = self.pool.submit_shares(lambda s: self.read(ids[s]), len(ids))
        cached = CachedImages.start(self.pool, self.cache, planned.ids, np.flatnonzero(is_cached), self.copies)
        return PendingBatch(planned, positions, files, cached)

    def finish(self, batch: PendingBatch) -> EncodedBatch:
        """Waits for all images. Raises BadFileError for bad files if they are neither left out nor replaced."""
        files = [file for share in batch.files for file in share.result()]
        cached, damaged = batch.cached.finish()
        files += self.read(batch.planned.ids[damaged])
        return self.without_bad(batch.planned, np.concatenate([batch.positions, damaged]), files, cached)

    def read(self, ids: np.ndarray) -> list[EncodedOrError]:
        """Reads the files of items (M,), in the calling thread."""
        files: list[EncodedOrError] = []
        reader = storage.BlockReader(self._allocate, TYPICAL_BYTES * len(ids))
        for i in ids.tolist():
            decoder, size = self.bad_files.decoder(i), self.headers.stored_size(i)
            try:
                files.append(read_encoded(self.paths[i], decoder, *size, reader.read))
            except UnusableImageError as problem:
                files.append(problem)
        return files

    def _allocate(self, num_bytes: int) -> np.ndarray:
        """Memory (num_bytes,) uint8, which is used again when none of the files in it is left."""
        return self.buffers.empty((num_bytes,), torch.uint8).numpy()

    def read_with_pillow(self, batch: EncodedBatch, rejected: Sequence[int]) -> EncodedBatch:
        """The batch with the files that DALI rejected, given by their indices in `encoded`, decoded by Pillow.

        Pillow accepts more, such as a PNG with a wrong checksum at its end; what it rejects too is a bad file.
        """
        ids = batch.planned.ids[batch.positions[list(rejected)]]
        self.bad_files.rejected_by_dali(ids)
        files: list[EncodedOrError] = list(batch.encoded)
        for index, file in zip(rejected, self.read(ids), strict=True):
            files[index] = file
        return self.without_bad(batch.planned, batch.positions, files, batch.cached)

    def without_bad(
        self, planned: PlannedBatch, positions: np.ndarray, files: list[EncodedOrError], cached: CachedImages
    ) -> EncodedBatch:
        """Reports bad files, and leaves them out of the batch or replaces them.

        The header of an image that has another size is read again first, and then the image.
        """
        for index, file in enumerate(files):
            i = int(planned.ids[positions[index]])
            if isinstance(file, ChangedImageError) and self.headers.read_again(
                i, self.planner.preprocessing.max_pixels
            ):
                (files[index],) = self.read(np.array([i]))
        bad = [index for index, file in enumerate(files) if isinstance(file, UnusableImageError)]
        if bad:
            self.bad_files.report({int(planned.ids[positions[index]]): str(files[index]) for index in bad})
        if bad and self.bad_files.replaces:
            for index in bad:
                position = int(positions[index])
                other, files[index] = self._replacement(int(planned.ids[position]))
                planned = planned.with_replacement(position, other)
        elif bad:
            is_kept = np.ones(len(planned.ids), bool)
            is_kept[positions[bad]] = False
            planned, new_position = planned.select(is_kept), np.cumsum(is_kept) - 1
            positions = new_position[positions[is_kept[positions]]]
            cached = cached._replace(positions=new_position[cached.positions])
        encoded = [file for file in files if isinstance(file, np.ndarray)]
        composed = self.pool.submit(self.planner.transforms, planned.ids, planned.occurrences)
        return EncodedBatch(planned, positions, encoded, cached, composed)

    def _replacement(self, i: int) -> tuple[int, np.ndarray]:
        """The next good item after a bad one, and its bytes."""
        while True:
            other = self.bad_files.replacement_for(i)
            (file,) = self.read(np.array([other]))
            if isinstance(file, np.ndarray):
                return other, file
            self.bad_files.report({other: str(file)})


def read_encoded(path: str, decoder: int, height: int, width: int, read: Callable[[str], np.ndarray]) -> np.ndarray:
    """Reads a file as encoded bytes (n,) uint8 that DALI decodes to the stored (height, width) of its header.

    Damaged JPEGs, bytes that DALI's parser rejects, and formats it does not decode, are decoded by Pillow and passed on
    as BMP: Pillow decides which files are bad, whatever a GPU's decoder would accept. Raises UnusableImageError if the
    file is missing, not an image, or has changed its size since the headers were read.
    """
    try:
        encoded = read(path)
    except OSError as error:
        raise UnusableImageError(f"unreadable ({reason(error)})") from None
    try:
        size = pipelines.parse(encoded) if decoder == DALI and not jpeg.is_damaged(encoded) else None
    except pipelines.ParseError:
        size = None  # such as lossless WebP with EXIF
    by_pillow = size is None
    if size is None:
        size = _stored_size(encoded.data)
    if size != (height, width):
        raise ChangedImageError(size, (height, width))
    return np.frombuffer(_as_bmp(encoded.data), np.uint8) if by_pillow else encoded


def _stored_size(encoded: memoryview) -> tuple[int, int]:
    """Height and width as stored, without decoding."""
    try:
        width, height = Image.open(io.BytesIO(encoded)).size
    except Exception as error:  # Pillow's plugins raise anything on damaged bytes
        raise _rejected_by_pillow(error) from None
    return height, width


def _as_bmp(encoded: memoryview) -> bytes:
    """Decodes an image with Pillow and encodes it as an uncompressed BMP file."""
    file = io.BytesIO()
    try:
        decode_stored_rgb(encoded).save(file, "BMP")
    except Exception as error:
        raise _rejected_by_pillow(error) from None
    return file.getvalue()


def _rejected_by_pillow(error: Exception) -> UnusableImageError:
    return UnusableImageError(f"not decoded by Pillow ({type(error).__name__}: {error})")

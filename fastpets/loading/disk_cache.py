"""A cache of decoded images in files, which outlives the run and which the processes of a machine share.

Each process that decodes images of a dataset appends them to a segment of its own in the dataset's folder, and reads
those of all others, so that none waits for another. A segment is two files:

    NAME.pixels   the pixels of images, one after another
    NAME.index    for each image an ENTRY, appended after its pixels

An image is used only if its pixels have the checksum of its entry, which is compared each time they are read. So a
killed run, a full disk, and truncated, foreign or removed files cost time, never correctness. Files are read, not
mapped into memory: a mapped file that another machine truncates would kill the process (SIGBUS). Copying an image from
the operating system's cache takes 5% of the time that warping it takes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import uuid
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from fastpets.errors import reason, warn
from fastpets.loading import cached_datasets
from fastpets.loading.cached_datasets import ENTRY, INDEX, PIXELS
from fastpets.loading.memory_cache import num_bytes

RESERVED_BYTES = 2**26  # a step in which disk space is reserved: growing a file by images takes 1.4 times as long
RESERVATIONS = 16  # a step takes at most this share of the room that is left
BLOCK_BYTES = 4096  # of a file system, which counts used space in blocks


class DiskCache:
    """The pixels of N images of the `sizes` (N, 2), height and width, in files. Threads and processes may share it.

    Args:
        folder: the cache folder, in which each dataset has its own. Raises FastpetsError if it cannot be written.
        root: where the dataset's images come from.
        version: of the pixels: decoders that may give other pixels have other versions, and another folder.
        keys: (N,) uint64, a hash of all that an image's pixels depend on: images with equal keys are the same.
        max_bytes: the disk space that all datasets in `folder` may take. Those used least recently are removed to make
            room; if that does not suffice, the images that do not fit are not kept.
        is_temporary: whether the dataset's folder is removed when no process uses it any more.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        folder: Path,
        root: str,
        version: str,
        keys: np.ndarray,
        sizes: np.ndarray,
        max_bytes: int,
        is_temporary: bool = False,
    ) -> None:
        self._identity = folder, root, version
        self._is_temporary = is_temporary
        self.folder, self.sizes, self.max_bytes = folder, sizes, max_bytes
        self.dataset_folder = folder / xxhash.xxh3_128_hexdigest(os.fsencode(f"{version}:{root}"))
        resources = contextlib.ExitStack()
        if is_temporary:
            resources.callback(cached_datasets.remove, self.dataset_folder)
        try:
            resources.callback(os.close, cached_datasets.open_folder(self.dataset_folder, root))
        except OSError as error:
            raise cached_datasets.unwritable(folder, reason(error), is_temporary) from None
        self._resources = resources
        weakref.finalize(self, _close, resources, os.getpid())
        self._keys, self._rows = np.unique(keys, return_inverse=True)  # each different image has a row
        num_rows = len(self._keys)
        self._filled = np.zeros(num_rows, bool)
        self._files, self._offsets = np.zeros(num_rows, np.int32), np.zeros(num_rows, np.int64)  # where its pixels are
        self._checksums = np.zeros(num_rows, np.uint64)
        self._num_read: dict[Path, int] = {}  # entries of each index
        self._opened: dict[Path, int] = {}  # descriptors of files of pixels
        self._segment: Segment | None = None
        self._is_full = False
        self._lock = threading.Lock()
        self.refresh()
        is_missing = ~self.filled
        first_of_each = np.unique(self._rows[is_missing], return_index=True)[1]
        needed = int(num_bytes(sizes[is_missing][first_of_each]).sum())
        cached_datasets.make_room(folder, needed, max_bytes, keep=self.dataset_folder)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the files itself."""
        keys = self._keys[self._rows]
        return DiskCache, (*self._identity, keys, self.sizes, self.max_bytes, self._is_temporary)

    def __deepcopy__(self, memo: object) -> DiskCache:
        """Copies of a Loader in one process share its cache."""
        return self

    @property
    def filled(self) -> np.ndarray:
        """(N,) bool, the images that are in the cache."""
        return self._filled[self._rows]

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of the items `ids` (B,) is in the cache: (B,) bool."""
        return self._filled[self._rows[ids]]

    def refresh(self) -> None:
        """Takes in the images that other processes have added."""
        indices: list[Path] = []
        with contextlib.suppress(OSError):
            os.utime(self.dataset_folder / cached_datasets.IN_USE)
            indices = sorted(self.dataset_folder.glob(f"*{INDEX}"), key=os.path.getmtime)
        for index in reversed(indices):  # an older entry may be a damaged one that was replaced
            with contextlib.suppress(OSError, ValueError):
                self._take_in(index)

    def _take_in(self, index: Path) -> None:
        """Takes in the entries that a segment has now and had not before."""
        start = self._num_read.get(index, 0)
        entries = np.fromfile(index, ENTRY, offset=start * ENTRY.itemsize)  # less an incomplete one at the end
        if not len(entries):
            return
        self._num_read[index] = start + len(entries)
        file = self._open(index.with_suffix(PIXELS))
        rows = np.searchsorted(self._keys, entries["key"]).clip(max=len(self._keys) - 1)
        is_new = (self._keys[rows] == entries["key"]) & ~self._filled[rows]
        rows, entries = rows[is_new], entries[is_new]
        self._files[rows], self._offsets[rows], self._checksums[rows] = file, entries["offset"], entries["checksum"]
        self._filled[rows] = True

    def _open(self, pixels: Path) -> int:
        if pixels not in self._opened:
            self._opened[pixels] = os.open(pixels, os.O_RDONLY)
            self._resources.callback(os.close, self._opened[pixels])
        return self._opened[pixels]

    def get(self, i: int, out: np.ndarray) -> np.ndarray | None:
        """Reads the image of item `i` into `out` (H, W, 3) uint8 and returns it.

        Returns None if it is not there intact, in the shape of `out`: that of a file which has changed has another one.
        """
        row = self._rows[i]
        if not self._filled[row] or out.shape[:2] != tuple(self.sizes[i]):
            return None
        with contextlib.suppress(OSError):
            num_read = os.preadv(self._files[row], [out.data], self._offsets[row])
            if num_read == out.nbytes and xxhash.xxh3_64_intdigest(out.data) == self._checksums[row]:
                return out
        self._filled[row] = False
        return None

    def put(self, i: int, image: torch.Tensor) -> None:
        """Adds the image (H, W, 3) uint8 of item `i`, if it is not there yet and there is room.

        An image of another size than that of its item, as of a file that has changed, is not kept.
        """
        row, pixels = int(self._rows[i]), image.numpy()
        if self._filled[row] or self._is_full or image.shape[:2] != tuple(self.sizes[i]):
            return
        try:
            with self._lock:
                if self._segment is None or self._segment.process != os.getpid():  # a forked child needs its own
                    self._segment = Segment(self.dataset_folder)
                    self._resources.callback(self._segment.close)
                segment = self._segment
                if pixels.nbytes > segment.num_free:
                    segment.reserve(self._num_allowed(pixels.nbytes))
                offset = segment.allocate(pixels.nbytes)
            checksum = xxhash.xxh3_64_intdigest(pixels.data)
            segment.write(offset, pixels, np.array((self._keys[row], offset, checksum), ENTRY))
        except OSError as error:
            self._stop_adding(str(reason(error)))
            return
        self._files[row], self._offsets[row], self._checksums[row] = segment.pixels, offset, checksum
        self._filled[row] = True

    def _num_allowed(self, needed: int) -> int:
        """How many bytes the segment may grow by now. Raises OSError if they are fewer than `needed`."""
        allowed = self.max_bytes - cached_datasets.num_bytes_on_disk(self.folder)
        if allowed < needed:
            raise OSError(errno.EDQUOT, f"its limit of {self.max_bytes / 1e9:.1f} GB is reached")
        share = max(BLOCK_BYTES, allowed // RESERVATIONS)  # other processes need room, too
        return max(needed, min(allowed, RESERVED_BYTES, share))

    def _stop_adding(self, problem: str) -> None:
        """Adds nothing more, and says so once."""
        with self._lock:
            if self._is_full:
                return
            self._is_full = True
        num_kept, num_images = int(self.filled.sum()), len(self._rows)
        warn(
            f"cache: {self.folder}: {problem}; {num_kept:,} of {num_images:,} images are kept there and the others are "
            "decoded each time; raise cache_gb, or remove other data sets with fastpets cache clear"
        )


class Segment:
    """A segment of the process that makes it, in a dataset's folder. Its methods raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.process = os.getpid()
        name = uuid.uuid4().hex
        self.pixels = os.open(folder / f"{name}{PIXELS}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self.index = os.open(folder / f"{name}{INDEX}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        self.end = self.num_free = 0  # bytes that are written, and bytes reserved after them

    def reserve(self, num_bytes: int) -> None:
        """Reserves disk space after what is written."""
        try:
            os.posix_fallocate(self.pixels, self.end, num_bytes)
        except AttributeError:
            pass  # macOS cannot reserve space
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # others: the file system cannot
        self.num_free = num_bytes

    def allocate(self, num_bytes: int) -> int:
        """The offset of the next `num_bytes` of the reserved space."""
        offset = self.end
        self.end, self.num_free = self.end + num_bytes, self.num_free - num_bytes
        return offset

    def write(self, offset: int, pixels: np.ndarray, entry: np.ndarray) -> None:
        """Writes an image, then its entry."""
        is_complete = os.pwrite(self.pixels, pixels.data, offset) == pixels.nbytes
        if not (is_complete and os.write(self.index, entry.data) == entry.nbytes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Gives back the reserved space that is left."""
        os.ftruncate(self.pixels, self.end)
        os.close(self.pixels)
        os.close(self.index)


def _close(resources: contextlib.ExitStack, process: int) -> None:
    """Closes the files, but not in a forked child: its parent still writes them."""
    if os.getpid() == process:
        resources.close()

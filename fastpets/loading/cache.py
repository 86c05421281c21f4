"""Where decoded images are kept from the first epoch on, so that later epochs do not decode them again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

from fastpets.data.headers import ImageHeaders, file_keys
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.loading.memory_cache import MemoryCache, free_bytes, num_bytes, room_in_memory
from fastpets.utils.system import num_local_processes, resolve_num_workers
from fastpets.utils.validation import CacheWhere, Decode

HOST = torch.device("cpu")
SHARED_MEMORY = Path("/dev/shm")
DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
# Odd numbers of 64 random bits (from SplitMix64 and MurmurHash3), by which facts about an image are multiplied.
HASH_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xFF51AFD7ED558CCD)


class Cache(Protocol):
    """The pixels of images (H, W, 3) uint8, decoded and, if large, shrunk. Threads may share it.

    Attributes:
        sizes: (N, 2), height and width of each image.
        device: where the pixels are.
    """

    sizes: np.ndarray
    device: torch.device

    @property
    def filled(self) -> np.ndarray:
        """(N,) bool, the images that are in the cache."""
        ...

    def refresh(self) -> None:
        """Takes in the images that other processes have added."""
        ...

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of the items `ids` (B,) is in the cache: (B,) bool."""
        ...

    def get(self, i: int, out: np.ndarray) -> np.ndarray | None:
        """The image of item `i`, on the host, or None if it is not there intact. It may be read into `out`."""
        ...

    def put(self, i: int, image: torch.Tensor) -> None:
        """Adds the image of item `i`, if it is not there yet and there is room."""
        ...


@dataclass(frozen=True, eq=False)
class ImagesToCache:
    """N images of a dataset, as they are cached.

    Args:
        headers: of their files.
        root: where the dataset comes from.
        sizes: (N, 2), height and width as stored, after shrinking.
        shrink: (N, 2), the factors by which stored height and width were divided.
        device: where they are used.
        uses_dali: whether DALI decodes them, on this device, and not libjpeg-turbo; Pillow decodes what these do not.
        decode: "exact" or "fast".
    """

    headers: ImageHeaders
    root: str
    sizes: np.ndarray
    shrink: np.ndarray
    device: torch.device
    uses_dali: bool
    decode: Decode

    @property
    def are_files(self) -> bool:
        """Whether another process can read them."""
        return not self.root.startswith("memory:")

    def keys(self) -> np.ndarray:
        """A hash of what the pixels of each image depend on: (N,) uint64."""
        keys = self.headers.keys
        if keys is None:
            with ThreadPoolExecutor(resolve_num_workers(None)) as pool:
                keys = file_keys(self.headers.paths, pool)
        facts = np.concatenate([self.sizes, self.shrink], axis=1).astype(np.uint64)
        return keys + facts @ np.array(HASH_MULTIPLIERS, np.uint64)

    def version(self) -> str:
        """How they are decoded: other libraries, and other releases, may give other pixels."""
        versions: list[str] = [self.decode]
        if self.uses_dali:
            versions.append(f"DALI on {self.device.type}")
        for name in ("pillow", *(DALI if self.uses_dali else ("simplejpeg",))):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions.append(f"{name} {metadata.version(name)}")
        return ", ".join(versions)


class Place(NamedTuple):
    """A place for a cache, and the bytes that it may take there."""

    name: str
    room: int
    make: Callable[[], Cache]


def make_cache(
    where: CacheWhere, images: ImagesToCache, cache_dir: str | os.PathLike[str] | None, cache_gb: float | None
) -> tuple[Cache | None, str]:
    """Returns a cache for images, or None, and a line that says where it is and why.

    "auto" is the first of device, host and disk that has room for all images, else no cache. For processes that
    torchrun started together, "host" is shared memory if that has room for all images, else the disk.

    Args:
        cache_dir: the folder below which the files are. Default: the user's cache folder.
        cache_gb: room in GB; on a disk, that of all datasets together. Default: half of what is free, less what
            `room_in_memory` leaves to training and to other processes.

    Raises FastpetsError if the files cannot be written, InvalidArgumentError for "disk" without image files.
    """
    if where == "disk" and not images.are_files:
        raise InvalidArgumentError("cache: 'disk', but the images are not in files; use 'host'")
    needed = int(num_bytes(images.sizes).sum())
    too_small, reasons = None, ""
    for place in _places(where, images, cache_dir, cache_gb):
        if isinstance(place, FastpetsError):
            reasons += f"; {place}"
        elif needed <= place.room:
            return _made(place, f"{gigabytes(needed)} of images, room for {gigabytes(place.room)}{reasons}")
        else:
            too_small = place
            reasons += f"; {place.name}: room for only {gigabytes(place.room)}"
    if where == "auto":
        return None, f"none: {gigabytes(needed)} of images{reasons}"
    if too_small is None:
        raise FastpetsError(reasons.removeprefix("; "))
    return _made(too_small, f"{gigabytes(needed)} of images, room for only {gigabytes(too_small.room)}")


def _made(place: Place, reason: str) -> tuple[Cache, str]:
    """The cache of a place, and the line about it."""
    cache = place.make()
    is_refused = getattr(cache, "is_pinned", None) is False
    return cache, f"{place.name}: {reason}{'; not pinned for the GPU, which the system refused' if is_refused else ''}"


def _places(
    where: CacheWhere, images: ImagesToCache, cache_dir: str | os.PathLike[str] | None, cache_gb: float | None
) -> Iterator[Place | FastpetsError]:
    """The places that `where` permits, the best first; for one that cannot be written to, the error."""
    from fastpets.loading import cached_datasets  # needs a POSIX system

    def room(free: int) -> int:
        return free // 2 if cache_gb is None else int(cache_gb * 1e9)

    def memory(name: str, device: torch.device) -> Place:
        allowed = room_in_memory(device, free_bytes(device), cache_gb)
        return Place(name, allowed, lambda: MemoryCache(images.sizes, device, allowed, images.device))

    def files(name: str, folder: Path, allowed: int, is_temporary: bool) -> Place | FastpetsError:
        if not os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK):
            return cached_datasets.unwritable(folder, "Permission denied", is_temporary)

        def make() -> Cache:
            from fastpets.loading.disk_cache import DiskCache

            keys, version = images.keys(), images.version()
            return DiskCache(folder, images.root, version, keys, images.sizes, allowed, is_temporary)

        return Place(name, allowed, make)

    is_shared = num_local_processes() > 1 and images.are_files
    if where == "device" and images.device.type == "cpu":
        where = "host"
    if where in ("device", "auto") and images.device.type != "cpu":
        yield memory(f"memory of {images.device}", images.device)
    if where in ("host", "auto") and not is_shared:
        yield memory("host memory", HOST)
    if where in ("host", "auto") and is_shared and SHARED_MEMORY.is_dir():
        folder = cached_datasets.temporary_folder(SHARED_MEMORY)
        free = min(free_bytes(HOST), shutil.disk_usage(SHARED_MEMORY).free)
        yield files("memory shared by the processes of this machine", folder, room(free), is_temporary=True)
    if images.are_files and (where in ("disk", "auto") or is_shared):
        try:
            folder = cached_datasets.pixels_folder(cache_dir)
        except FastpetsError as error:
            yield error
            return
        free = shutil.disk_usage(folder).free + cached_datasets.num_bytes_on_disk(folder)
        yield files(f"files below {folder}", folder, room(free), is_temporary=False)


def gigabytes(num: int) -> str:
    """A number of bytes with its unit, GB or MB."""
    return f"{num / 1e9:.1f} GB" if num >= 1e8 else f"{num / 1e6:.1f} MB"

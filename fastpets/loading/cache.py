"""Decoded images, kept in memory from the first epoch on, so that later epochs do not decode them again."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
import torch

from fastpets import kernels
from fastpets.utils.system import free_memory
from fastpets.utils.validation import CacheWhere

# Pages are committed when they are written: what caches have reserved counts as free memory until then.
_caches: weakref.WeakSet[Cache] = weakref.WeakSet()


class Cache:
    """The pixels of N images of the `sizes` (N, 2), height and width, packed in one block of memory on `device`.

    The block holds as many of the images, from the first on, as fit in `budget` bytes. Threads may share it.

    Attributes:
        filled: (N,) bool, the images that are in the cache.
    """

    def __init__(self, sizes: np.ndarray, device: torch.device, budget: int) -> None:
        self.sizes, self.device = sizes, device
        self.starts = np.concatenate([[0], np.cumsum(num_bytes(sizes))])
        self.num_kept = int(np.searchsorted(self.starts, budget, side="right")) - 1
        end = int(self.starts[self.num_kept])
        if device.type == "cpu":
            self.block = torch.from_numpy(np.empty(end, np.uint8))  # NumPy asks for huge pages, torch does not
        else:
            self.block = torch.empty(end, dtype=torch.uint8, device=device)
        self.filled = np.zeros(len(sizes), bool)
        _caches.add(self)

    def images(self, ids: np.ndarray, device: torch.device) -> kernels.PackedImages:
        """Returns the images (H, W, 3) uint8 of items `ids` (B,), which must be filled, on `device`."""
        here = kernels.PackedImages(self.block, self.starts[ids], self.sizes[ids])
        if self.device == device or not len(ids):
            return here
        ends = np.cumsum(num_bytes(here.sizes))
        packed = torch.empty(int(ends[-1]), dtype=torch.uint8, pin_memory=True)
        torch.cat([image.flatten() for image in here], out=packed)
        return kernels.PackedImages(kernels.to_device(packed, device), ends - num_bytes(here.sizes), here.sizes)

    def pixels(self, i: int) -> np.ndarray:
        """Returns the image (H, W, 3) uint8 of item `i`, which must be filled, in a cache on the host."""
        height, width = self.sizes[i].tolist()
        return self.block.numpy()[self.starts[i] : self.starts[i + 1]].reshape(height, width, 3)

    def put(self, ids: Sequence[int], images: Sequence[torch.Tensor]) -> None:
        """Copies decoded images into the cache, those that are not in it and have room."""
        for i, image in zip(ids, images, strict=True):
            if i < self.num_kept and not self.filled[i]:
                (view,) = kernels.PackedImages(self.block, self.starts[[i]], self.sizes[[i]])
                if view.device.type == image.device.type == "cpu":
                    np.copyto(view.numpy(), image.numpy())  # torch would wake its own threads for each image
                else:
                    view.copy_(image)
                self.filled[i] = True


def make_cache(where: CacheWhere, sizes: np.ndarray, device: torch.device) -> Cache | None:
    """Returns a cache for images of the `sizes` (N, 2), height and width, or None.

    "host" and "device" take at most half of the memory that is free there. "auto" is the device if all images fit in
    half of its free memory, else the host likewise, else no cache.
    """
    host = torch.device("cpu")
    if where == "auto":
        devices = [each for each in (device, host) if num_bytes(sizes).sum() <= free_bytes(each) // 2]
    else:
        devices = {"none": [], "host": [host], "device": [device]}[where]
    return Cache(sizes, devices[0], free_bytes(devices[0]) // 2) if devices else None


def num_bytes(sizes: np.ndarray) -> np.ndarray:
    """Returns the bytes (N,) of images of the sizes (N, 2)."""
    return sizes.astype(np.int64).prod(axis=-1) * 3


def free_bytes(device: torch.device) -> int:
    """Returns the free bytes of a device; on the host, less what existing caches have reserved but not yet written."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    reserved = sum(cache.block.numel() - int(num_bytes(cache.sizes[cache.filled]).sum())
                   for cache in list(_caches) if cache.device == device)  # fmt: skip
    return max(0, free_memory() - reserved)

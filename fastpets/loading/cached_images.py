"""The cached images of a batch, read ahead of their use and copied to the device beside its other work."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import torch

from fastpets.kernels import PackedImages
from fastpets.loading.cache import Cache
from fastpets.loading.memory_cache import MemoryCache, num_bytes
from fastpets.loading.pool import Pool
from fastpets.loading.stream_order import StreamOrder


class Copy(NamedTuple):
    """Images on a GPU, which may be read after `is_done`."""

    images: PackedImages
    is_done: torch.cuda.Event


class Copies:
    """Copies images to a GPU, on a stream of its own. On a CPU there is nothing to copy. Threads may share it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, images: PackedImages) -> Copy:
        """Starts to copy images from pinned memory; those that adjoin, in one piece."""
        assert self._stream is not None
        is_next = images.starts[1:] == (images.starts + num_bytes(images.sizes))[:-1]
        first = np.flatnonzero(np.append(True, ~is_next))  # of each piece
        with torch.cuda.stream(self._stream):
            there = packed(images.sizes, device=self.device)
            lengths = np.diff(np.append(there.starts[first], there.block.numel())).tolist()
            pieces = zip(images.starts[first].tolist(), lengths, strict=True)
            sources = [images.block[start : start + length] for start, length in pieces]
            torch._foreach_copy_([*there.block.split(lengths)], sources, non_blocking=True)
            is_done = torch.cuda.Event()
            is_done.record(self._stream)
        return Copy(there, is_done)

    def wait(self) -> None:
        """Waits until all copies that were started are made."""
        if self._stream is not None:
            self._stream.synchronize()


class CachedImages(NamedTuple):
    """The images at the `positions` (K,) of a batch that are in a cache.

    `tasks` read consecutive shares of them into `images`, and return for each image whether it is intact. `order` is
    that of a cache on the device, in which they lie. `copy` is the future of their copy to the device, from pinned
    memory.
    """

    positions: np.ndarray
    images: PackedImages
    tasks: Sequence[Future[list[bool]]]
    order: StreamOrder | None = None
    copy: Future[Copy] | None = None

    @classmethod
    def start(
        cls, pool: Pool, cache: Cache | None, batch_ids: np.ndarray, positions: np.ndarray, copies: Copies
    ) -> CachedImages:
        """Has the pool read the items at `positions` of a batch (B,), which are in the cache.

        In the device's own memory they stay where they are. From pinned memory they are copied to the device.
        """
        ids = batch_ids[positions]
        if cache is None:
            return cls(positions, PackedImages(torch.empty(0, dtype=torch.uint8), ids, np.empty((0, 2), np.int64)), [])
        if isinstance(cache, MemoryCache) and cache.device == copies.device:
            return cls(positions, cache.packed(ids), [], cache.order)
        if isinstance(cache, MemoryCache) and cache.is_pinned and len(ids):
            images = cache.packed(ids)
            return cls(positions, images, [], copy=pool.submit(copies.start, images))
        images = packed(cache.sizes[ids], pin_memory=copies.device.type == "cuda")

        def read(share: slice) -> list[bool]:
            views = [image.numpy() for image in images[share]]
            return [_read_into(view, cache, i) for i, view in zip(ids[share].tolist(), views, strict=True)]

        return cls(positions, images, pool.submit_shares(read, len(ids)))

    def finish(self) -> tuple[CachedImages, np.ndarray]:
        """Waits for the tasks. Returns the intact images, and the positions of the others."""
        if not self.tasks:
            return self, np.empty(0, np.int64)
        is_intact = np.array([intact for task in self.tasks for intact in task.result()])
        images = PackedImages(self.images.block, self.images.starts[is_intact], self.images.sizes[is_intact])
        return CachedImages(self.positions[is_intact], images, []), self.positions[~is_intact]

    def on(self, copies: Copies) -> PackedImages:
        """The images on the device, for work of its current stream, which waits for those that copy or cached them."""
        if self.order is not None:
            self.order.wait()
        if self.images.block.device == copies.device or len(self.positions) == 0:
            return self.images
        copy = copies.start(self.images) if self.copy is None else self.copy.result()
        current = torch.cuda.current_stream(copies.device)
        current.wait_event(copy.is_done)
        copy.images.block.record_stream(current)
        return copy.images


def packed(sizes: np.ndarray, **where: Any) -> PackedImages:
    """Uninitialised images of the sizes (K, 2) in one block of memory, allocated by torch.empty."""
    ends = np.cumsum(num_bytes(sizes))
    block = torch.empty(int(ends.max(initial=0)), dtype=torch.uint8, **where)
    return PackedImages(block, ends - num_bytes(sizes), sizes)


def keep(pool: Pool, cache: Cache, ids: np.ndarray, images: Sequence[torch.Tensor]) -> None:
    """Puts images into a cache. From a GPU into files or the host's memory, the pool does so once they are copied."""
    if not ids.size or images[0].device == cache.device:
        for i, image in zip(ids.tolist(), images, strict=True):
            cache.put(i, image)
        return
    copies = [torch.empty(image.shape, dtype=torch.uint8, pin_memory=True) for image in images]
    for copy, image in zip(copies, images, strict=True):
        copy.copy_(image, non_blocking=True)
    is_copied = torch.cuda.Event()
    is_copied.record(torch.cuda.current_stream(images[0].device))  # by default it would be another GPU's, the current

    def put() -> None:
        is_copied.synchronize()
        for i, copy in zip(ids.tolist(), copies, strict=True):
            cache.put(i, copy)

    pool.submit(put)


def _read_into(out: np.ndarray, cache: Cache, i: int) -> bool:
    """Reads a cached image into `out` (H, W, 3). Returns whether it is intact."""
    image = cache.get(i, out)
    if image is not None and image is not out:
        np.copyto(out, image)
    return image is not None

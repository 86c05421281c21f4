"""The cached images of a batch, read ahead of their use and copied to the device beside its other work."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch

from fastpets.kernels import PackedImages
from fastpets.loading.cache import Cache
from fastpets.loading.memory_cache import MemoryCache, num_bytes
from fastpets.loading.pool import Pool
from fastpets.loading.stream_order import StreamOrder


class CachedImages(NamedTuple):
    """The images at the `positions` (K,) of a batch that are in a cache.

    `tasks` read consecutive shares of them into `images`, and return for each image whether it is intact. `order` is
    that of a cache in which they lie.
    """

    positions: np.ndarray
    images: PackedImages
    tasks: Sequence[Future[list[bool]]]
    order: StreamOrder | None = None

    @classmethod
    def start(
        cls, pool: Pool, cache: Cache | None, batch_ids: np.ndarray, positions: np.ndarray, device: torch.device
    ) -> CachedImages:
        """Has the pool read the items at `positions` of a batch (B,), which are in the cache.

        In the device's own memory they stay where they are.
        """
        ids = batch_ids[positions]
        if cache is None:
            return cls(positions, PackedImages(torch.empty(0, dtype=torch.uint8), ids, np.empty((0, 2), np.int64)), [])
        if isinstance(cache, MemoryCache) and cache.device == device:
            return cls(positions, cache.packed(ids), [], cache.order)
        sizes = cache.sizes[ids]
        ends = np.cumsum(num_bytes(sizes))
        block = torch.empty(int(ends.max(initial=0)), dtype=torch.uint8, pin_memory=device.type == "cuda")
        images = PackedImages(block, ends - num_bytes(sizes), sizes)

        def read(share: slice) -> list[bool]:
            views = [image.numpy() for image in images[share]]
            return [_read_into(view, cache, i) for i, view in zip(ids[share].tolist(), views, strict=True)]

        return cls(positions, images, pool.submit_shares(read, len(ids)))

    def finish(self) -> tuple[CachedImages, np.ndarray]:
        """Waits for the tasks. Returns the intact images, and the positions of the others."""
        if not self.tasks:
            return self, np.empty(0, np.int64)
        is_intact = np.array([intact for task in self.tasks for intact in task.result()])
        return self._replace(tasks=[]).select(is_intact), self.positions[~is_intact]

    def select(self, which: np.ndarray) -> CachedImages:
        """The images that a mask (K,) selects."""
        block, starts, sizes = self.images.block, self.images.starts[which], self.images.sizes[which]
        return self._replace(positions=self.positions[which], images=PackedImages(block, starts, sizes))

    def on(self, device: torch.device) -> PackedImages:
        """The images on a device, for work of its current stream.

        On a GPU, they are copied on a stream of its own, for which the current one waits. If they are there already, it
        waits for the streams that filled the cache.
        """
        block = self.images.block
        if self.order is not None:
            self.order.wait()
        if block.device == device or len(self.positions) == 0:
            return self.images
        with torch.cuda.stream(_copy_stream(device)):
            copy = block.to(device, non_blocking=True)
        current = torch.cuda.current_stream(device)
        current.wait_stream(_copy_stream(device))
        copy.record_stream(current)
        return PackedImages(copy, self.images.starts, self.images.sizes)


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


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)

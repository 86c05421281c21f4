"""The warp stage: decoded or cached images to one tensor, and the cache filled on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastpets import kernels
from fastpets.loading.cache import Cache
from fastpets.loading.cached_images import CachedImages, keep
from fastpets.loading.planning import PlannedBatch
from fastpets.loading.pool import Pool


class HeldImages:
    """Keeps DALI's images on a GPU until kernels that read them are done: once freed, DALI overwrites them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: deque[tuple[torch.cuda.Event, Any]] = deque()

    def __enter__(self) -> HeldImages:
        return self

    def __exit__(self, *_: object) -> None:
        for event, _ in self._held:  # the caller may have changed streams between them
            event.synchronize()

    def hold(self, images: Sequence[torch.Tensor]) -> None:
        """Keeps images until all work that the current stream has now is done; on a CPU, does nothing."""
        if self.device.type != "cuda" or not images:
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        self._held.append((event, images))
        while self._held and self._held[0][0].query():
            self._held.popleft()


def shrink(pool: Pool, images: Sequence[torch.Tensor], factors: np.ndarray) -> list[torch.Tensor]:
    """Divides images by whole factors (M, 2) in height and width, each block of pixels to its mean."""

    def shrink_one(image: torch.Tensor, by: list[int]) -> torch.Tensor:
        return kernels.shrink(image, *by) if max(by) > 1 else image

    if factors.max(initial=1) == 1:
        return list(images)
    on_cpu = images[0].device.type == "cpu"  # a GPU's launches stay in this thread, whose current stream they follow
    return list((pool.map if on_cpu else map)(shrink_one, images, factors.tolist()))


def warp(
    pool: Pool,
    planned: PlannedBatch,
    decoded: dict[int, torch.Tensor],
    cached: CachedImages,
    cache: Cache | None,
    out: torch.Tensor,
    borders: str,
) -> None:
    """Warps a batch of B images into `out` (B, H, W, 3).

    `decoded` maps positions in the batch to decoded, shrunk images, which `cache` keeps. The others are `cached`.
    """
    images = _in_order(decoded, cached, out.device)
    matrices, samples, spread, luts = map(torch.from_numpy, planned.transforms[:4])
    luts = luts.to(out.dtype).contiguous()

    def warp_share(share: slice) -> None:
        some = images[share], matrices[share], samples[share], spread[share], luts[share]
        kernels.warp(*some, out[share], borders)
        if cache is not None and decoded:
            new = [position for position in range(share.start, share.stop) if position in decoded]
            keep(pool, cache, planned.ids[new], [images[position] for position in new])

    if out.device.type == "cpu":
        pool.run_shares(warp_share, len(planned.ids))
    else:
        warp_share(slice(0, len(planned.ids)))  # in this thread, whose current stream it follows


def _in_order(decoded: dict[int, torch.Tensor], cached: CachedImages, device: torch.device) -> Sequence[torch.Tensor]:
    """The images of a batch, decoded or cached, on the device."""
    if not decoded:
        return cached.on(device)
    images = decoded | dict(zip(cached.positions.tolist(), cached.on(device), strict=True))
    return [images[position] for position in range(len(images))]

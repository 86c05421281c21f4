"""From a batch's images, just decoded or kept from before, to the tensor that the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastpets import kernels
from fastpets.augment.transforms import Transforms

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader


def shrink_large(pool: Executor, images: Sequence[torch.Tensor], factors: np.ndarray) -> list[torch.Tensor]:
    """The images, divided by whole factors (M, 2) in height and width where those are not 1."""

    def shrunk(image: torch.Tensor, by: list[int]) -> torch.Tensor:
        return kernels.shrink(image, *by) if max(by) > 1 else image

    if factors.max(initial=1) == 1:
        return list(images)
    on_cpu = images[0].device.type == "cpu"  # else in this thread, for the stream that is current in it
    return list((pool.map if on_cpu else map)(shrunk, images, factors.tolist()))


def assemble(
    loader: Loader, pool: Executor, ids: np.ndarray, todo: Transforms, decoded: dict[int, torch.Tensor]
) -> torch.Tensor:
    """The images `ids` (B,) through their matrices and luts: (B, 3, H, W), in memory that is the batch's own.

    `decoded` has those that were decoded and shrunk, by their positions; the cache has the others, and takes these in.
    """
    images = _in_order(loader, ids, decoded)
    out = loader.buffers.empty((len(ids), *loader.preprocessing.size, 3), loader.dtype)
    matrices, samples, spread, luts = map(torch.from_numpy, todo[:4])
    luts = luts.to(out.dtype).contiguous()

    def warp(part: slice) -> None:
        few = images[part], matrices[part], samples[part], spread[part], luts[part]
        kernels.warp(*few, out[part], loader.preprocessing.borders)
        if loader.cache is not None and decoded:
            loader.cache.put(ids[part].tolist(), images[part])

    if loader.device.type == "cpu":
        list(pool.map(warp, slices(len(ids), loader.num_workers)))
    else:
        warp(slice(0, len(ids)))  # in this thread, for the stream that is current in it
    return out.permute(0, 3, 1, 2)


def _in_order(loader: Loader, ids: np.ndarray, decoded: dict[int, torch.Tensor]) -> Sequence[torch.Tensor]:
    """All images of a batch, those that were decoded and those from the cache."""
    if loader.cache is None:
        return [decoded[position] for position in range(len(ids))]
    if not decoded:
        return loader.cache.images(ids, loader.device)
    kept = [position for position in range(len(ids)) if position not in decoded]
    from_cache = dict(zip(kept, loader.cache.images(ids[kept], loader.device), strict=True))
    return [decoded[position] if position in decoded else from_cache[position] for position in range(len(ids))]


def slices(count: int, num_parts: int) -> list[slice]:
    """0 to `count` in at most so many parts, none of them empty, of about equal lengths."""
    ends = np.linspace(0, count, min(count, num_parts) + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def slices_by_size(sizes: np.ndarray, most: int) -> list[slice]:
    """All of the sizes (N,) in consecutive parts of at most `most` together, or of one that is larger by itself."""
    parts, start, total = [], 0, 0
    for position, size in enumerate(sizes.tolist()):
        if position > start and total + size > most:
            parts.append(slice(start, position))
            start, total = position, 0
        total += size
    return [*parts, slice(start, len(sizes))] if len(sizes) else []

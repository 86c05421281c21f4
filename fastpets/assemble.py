"""From a batch's pictures, just decoded or kept from before, to the tensor that the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastpets import kernels
from fastpets.augment import Transforms

if TYPE_CHECKING:
    from fastpets.loader import Loader


def assemble(
    loader: Loader, pool: Executor, ids: np.ndarray, todo: Transforms, wanted: np.ndarray, decoded: Sequence[Any]
) -> torch.Tensor:
    """The pictures `ids` (B,) through their matrices and tables: (B, 3, H, W), in memory that is the batch's own.

    `decoded` are DALI's tensors of those at the positions `wanted`; the cache has the others, and takes these in.
    """
    pictures = dict(zip(wanted.tolist(), map(torch.from_dlpack, decoded), strict=True))
    if loader.cache is not None:
        kept = [position for position in range(len(ids)) if position not in pictures]
        pictures |= zip(kept, loader.cache.pictures(ids[kept].tolist(), loader.device), strict=True)
    in_order = [pictures[position] for position in range(len(ids))]
    out = loader.buffers.empty((len(ids), *loader.size, 3), loader.dtype)
    matrices, samples, spread, tables = map(torch.from_numpy, todo[:4])
    tables = tables.to(out.dtype)
    large = [position for position in wanted.tolist() if todo.shrink[position].max() > 1]

    def warp(part: slice) -> None:
        for position in large:
            if part.start <= position < part.stop:
                in_order[position] = kernels.shrink(in_order[position], *todo.shrink[position].tolist())
        few = in_order[part], matrices[part], samples[part], spread[part], tables[part]
        kernels.warp(*few, out[part], loader.borders)
        if loader.cache is not None:
            loader.cache.put(ids[part].tolist(), in_order[part])

    if loader.device.type == "cpu":
        list(pool.map(warp, slices(len(ids), loader.num_workers)))
    else:
        warp(slice(0, len(ids)))  # in this thread, for the stream that is current in it
    return out.permute(0, 3, 1, 2)


def slices(count: int, num_parts: int) -> list[slice]:
    """0 to `count` in at most so many parts, none of them empty, of about equal lengths."""
    ends = np.linspace(0, count, min(count, num_parts) + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]

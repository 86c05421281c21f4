"""The warp stage: decoded and cached images to one tensor."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from fastpets import kernels
from fastpets.augment import lookup_tables
from fastpets.augment.preprocessing import Preprocessing
from fastpets.augment.transforms import Transforms
from fastpets.loading.pool import Pool

MAX_HELD = 4  # chunks that were shrunk and batches that were warped, so two batches of one chunk


class DecodedImages(NamedTuple):
    """Images (H, W, 3) uint8, decoded and shrunk, and their positions (M,) in a batch."""

    positions: np.ndarray
    images: Sequence[torch.Tensor]


class HeldImages:
    """Keeps images on a GPU until kernels that read them are done: DALI overwrites its own as soon as they are freed.

    It also keeps the caller from running ahead of the GPU, since memory for decoded images and copies of cached ones
    would grow without limit in a loop that never waits, such as one that replays a CUDA graph.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: deque[tuple[torch.cuda.Event, Any]] = deque()

    def __enter__(self) -> HeldImages:
        return self

    def __exit__(self, *_: object) -> None:
        for event, _ in self._held:  # the caller may have changed streams between them
            event.synchronize()

    def hold(self, images: Any) -> None:
        """Keeps images until all work that the current stream has now is done; on a CPU, does nothing.

        Waits for the oldest ones if there are more than MAX_HELD.
        """
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        self._held.append((event, images))
        while self._held and self._held[0][0].query():
            self._held.popleft()
        while len(self._held) > MAX_HELD:
            self._held[0][0].synchronize()
            self._held.popleft()


def shrink(pool: Pool, images: Sequence[torch.Tensor], factors: np.ndarray) -> Sequence[torch.Tensor]:
    """Divides images by whole factors (M, 2) in height and width, each block of pixels to its mean."""

    def shrink_one(image: torch.Tensor, by: list[int]) -> torch.Tensor:
        return kernels.shrink(image, *by) if max(by) > 1 else image

    if factors.max(initial=1) == 1:
        return images
    if images[0].device.type == "cpu":
        return list(pool.map(shrink_one, images, factors.tolist()))
    return kernels.shrink_batch(images, factors)  # in this thread, whose current stream it follows


def warp(
    pool: Pool,
    images: Sequence[torch.Tensor],
    labels: np.ndarray,
    transforms: Transforms,
    preprocessing: Preprocessing,
    out: torch.Tensor,
) -> torch.Tensor:
    """Warps B images into `out` (B, H, W, 3). Returns their labels (B,) on its device.

    On a GPU, labels travel in one copy with the kernels' arguments, of whose memory they are a part.
    """
    if out.device.type == "cpu":
        pool.run_shares(partial(_warp_on_cpu, images, transforms, preprocessing, out), len(images))
        return torch.from_numpy(labels)
    return _warp_on_gpu(images, labels, transforms, preprocessing, out)


def _warp_on_cpu(
    images: Sequence[torch.Tensor],
    transforms: Transforms,
    preprocessing: Preprocessing,
    out: torch.Tensor,
    share: slice,
) -> None:
    matrices, samples, spread = (torch.from_numpy(values[share]) for values in transforms[:3])
    luts = lookup_tables.luts(transforms.adjustments[share], preprocessing.normalization)
    luts_of_type = kernels.converted(luts, out.dtype)
    kernels.warp(images[share], matrices, samples, spread, luts_of_type, out[share], preprocessing.borders)


def _warp_on_gpu(
    images: Sequence[torch.Tensor],
    labels: np.ndarray,
    transforms: Transforms,
    preprocessing: Preprocessing,
    out: torch.Tensor,
) -> torch.Tensor:
    """Copies all arguments at once, then launches both kernels, in the order of this thread's current stream."""
    from fastpets.kernels import luts_triton, warp_triton

    rows = warp_triton.pack_arguments(images, *map(torch.from_numpy, transforms[:3]))
    values = rows, torch.from_numpy(transforms.adjustments), torch.from_numpy(labels)
    rows, adjustments, labels_there = kernels.to_device(values, out.device)
    luts = luts_triton.luts(adjustments, preprocessing.normalization, out.dtype)
    warp_triton.launch(rows, luts, out, preprocessing.borders)
    return labels_there


def images_in_order(parts: Sequence[DecodedImages], num_images: int) -> Sequence[torch.Tensor]:
    """The images of a batch from its parts."""
    parts = [part for part in parts if len(part.positions)]
    if len(parts) == 1 and np.array_equal(parts[0].positions, np.arange(num_images)):
        return parts[0].images  # packed, without a tensor for each
    images: dict[int, torch.Tensor] = {}
    for positions, some in parts:
        images |= zip(positions.tolist(), some, strict=True)
    return [images[position] for position in range(num_images)]

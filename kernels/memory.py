"""Where a batch's images lie, and how what a GPU needs gets there."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch


class Packed(Sequence[torch.Tensor]):
    """B images (H, W, 3) uint8 of the sizes (B, 2), which begin at `starts` (B,) in one block of memory (bytes,).

    A view of one costs 3 us, and is made for who asks for it; the GPU's kernel wants no more than the places of all.
    Raises ValueError for an image without pixels, or beyond the block.
    """

    def __init__(self, block: torch.Tensor, starts: np.ndarray, sizes: np.ndarray) -> None:
        self.block, self.starts, self.sizes = block, starts, sizes
        ends = starts + 3 * sizes.astype(np.int64).prod(axis=-1)
        if len(starts) and (sizes.min() < 1 or starts.min() < 0 or ends.max() > block.numel()):
            raise ValueError(f"images at bytes {starts.min()} to {ends.max()} of a block of {block.numel()}")

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, which: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, which: slice) -> "Packed": ...
    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            return Packed(self.block, self.starts[which], self.sizes[which])
        height, width = self.sizes[which].tolist()
        start = int(self.starts[which])
        return self.block[start : start + 3 * height * width].view(height, width, 3)


def places(images: Sequence[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Addresses (B,) and sizes (B, 2), int64, of images that lie in memory without gaps."""
    if isinstance(images, Packed):
        return images.block.data_ptr() + images.starts, images.sizes
    addresses = np.array([image.data_ptr() for image in images], np.int64)
    return addresses, np.array([length for image in images for length in image.shape]).reshape(-1, 3)[:, :2]


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device, without waiting for it. A copy from the CPU goes through pinned memory, which is let go
    at once: torch hands it out again only when the stream has passed the copy."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

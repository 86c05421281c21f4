"""Images packed into one block of memory, and copies to a device."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch


class PackedImages(Sequence[torch.Tensor]):
    """A sequence of B images (H, W, 3) uint8 in one block of memory.

    Views are created on access, as each costs 3 us and the GPU kernel needs addresses only. Raises ValueError for an
    image without pixels, or outside the block.

    Args:
        block: (num_bytes,) uint8.
        starts: (B,) int64, the image's first byte in the block.
        sizes: (B, 2), height and width.
    """

    def __init__(self, block: torch.Tensor, starts: np.ndarray, sizes: np.ndarray) -> None:
        self.block, self.starts, self.sizes = block, starts, sizes
        ends = starts + 3 * sizes.astype(np.int64).prod(axis=-1)
        if len(starts) and (sizes.min() < 1 or starts.min() < 0 or ends.max() > block.numel()):
            found = f"images at bytes {starts.min()} to {ends.max()}, the smallest side {sizes.min()}"
            raise ValueError(f"starts: {found}, expected images with pixels within {block.numel()} bytes")

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "PackedImages": ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return PackedImages(self.block, self.starts[index], self.sizes[index])
        height, width = self.sizes[index].tolist()
        start = int(self.starts[index])
        return self.block[start : start + 3 * height * width].view(height, width, 3)


def addresses_and_sizes(images: Sequence[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Addresses (B,) int64 and heights and widths (B, 2) of contiguous images."""
    if isinstance(images, PackedImages):
        return images.block.data_ptr() + images.starts, images.sizes
    addresses = np.array([image.data_ptr() for image in images], np.int64)
    return addresses, np.array([length for image in images for length in image.shape]).reshape(-1, 3)[:, :2]


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor to a device asynchronously, from the CPU through pinned memory.

    The pinned memory is freed at once: torch's allocator reuses it only after the stream has completed the copy.
    """
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

"""Images in memory: packed into one block, their addresses, copies to a device."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch

# Lookup tables and outputs are copied as integers of their width, by bytes per element. No arithmetic is done on them:
# one compiled kernel serves float16 and bfloat16, and NumPy needs neither.
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
ALIGNMENT = 16  # bytes of a tensor's address, for which Triton compiles


class PackedImages(Sequence[torch.Tensor]):
    """A sequence of B images (H, W, 3) uint8 that lie in one block of memory.

    A view of an image takes 3 us to make and is made only on indexing; the GPU kernel takes `addresses_and_sizes`.

    Args:
        block: (bytes,) uint8.
        starts: (B,) int64, the byte of the block at which each image starts.
        sizes: (B, 2), height and width of each image in pixels.

    Raises ValueError for another type of block, and if an image has no pixels or is not within the block.
    """

    def __init__(self, block: torch.Tensor, starts: np.ndarray, sizes: np.ndarray) -> None:
        if block.dtype != torch.uint8 or block.ndim != 1 or not block.is_contiguous():
            raise ValueError(f"block: {block.dtype} {tuple(block.shape)}, expected contiguous uint8 (bytes,)")
        self.block, self.starts, self.sizes = block, starts, sizes
        ends = starts + 3 * sizes.astype(np.int64).prod(axis=-1)
        if len(starts) and (sizes.min() < 1 or starts.min() < 0 or ends.max() > block.numel()):
            raise ValueError(
                f"images at bytes {starts.min()} to {ends.max()} with sides of at least {sizes.min()} px, "
                f"expected sides of at least 1 px, within a block of {block.numel()} bytes"
            )

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
    """Returns the addresses (B,) int64 and the sizes (B, 2), height and width, of contiguous images (H, W, 3)."""
    if isinstance(images, PackedImages):
        return images.block.data_ptr() + images.starts, images.sizes
    addresses = np.array([image.data_ptr() for image in images], np.int64)
    return addresses, np.array([length for image in images for length in image.shape]).reshape(-1, 3)[:, :2]


def converted(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Converts float32 numbers to float16 or bfloat16, rounded to even, or returns the same memory as a tensor.

    NumPy computes, since torch would use OpenMP, which hangs in a forked process whose parent used it.
    """
    if dtype == torch.float16:
        return torch.from_numpy(values.astype(np.float16))
    if dtype == torch.bfloat16:
        bits = values.view(np.uint32)  # bfloat16 is the upper half of float32
        rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
        return torch.from_numpy(rounded.astype(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def to_device(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Returns contiguous tensors of the CPU on `device`, in one copy, without waiting for it.

    For a GPU they are put together in one block of pinned memory, which is released on return: torch's allocator keeps
    such blocks, and hands one out again when the streams that copied from it are done.
    """
    if device.type == "cpu":
        return [*tensors]
    sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]
    block = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
    for part, tensor in zip(block.split(sizes), tensors, strict=True):
        part[: tensor.nbytes].numpy()[:] = tensor.view(-1).view(torch.uint8).numpy()
    parts = block.to(device, non_blocking=True).split(sizes)
    return [part[: like.nbytes].view(like.dtype).view(like.shape) for part, like in zip(parts, tensors, strict=True)]

"""A cache of decoded images in the memory of this process, on the host or on a GPU."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import numpy as np
import torch

from fastpets import kernels
from fastpets.loading.stream_order import StreamOrder
from fastpets.utils.system import free_memory, num_local_processes

# Of a GPU's free memory, what no cache takes by default. An estimate, not measured, for a ResNet-50 that trains on 64
# images of 224 px in float32, and DALI beside it.
RESERVED_BYTES = 6 * 2**30

FOR_ALL_GPUS = 1  # cudaHostRegisterPortable

# Pages are committed when they are pinned or written: what caches have reserved counts as free memory until then.
_caches: weakref.WeakSet[MemoryCache] = weakref.WeakSet()


class MemoryCache:
    """The pixels of N images of the `sizes` (N, 2), height and width, packed in one block of memory on `device`.

    The block holds as many of the images, from the first on, as fit in `max_bytes`. Threads may share it. On the host,
    a GPU that uses the images (`used_on`) can copy from it by itself, if the system lets it.

    Attributes:
        filled: (N,) bool, the images that are in the cache.
        order: makes CUDA streams that read the block wait for those that fill it.
        is_pinned: whether GPUs can copy from a block on the host; None if it is used on the device where it is.
    """

    def __init__(
        self, sizes: np.ndarray, device: torch.device, max_bytes: int, used_on: torch.device | None = None
    ) -> None:
        self.sizes, self.device = sizes, device
        self.starts = np.concatenate([[0], np.cumsum(num_bytes(sizes))])
        self.num_kept = int(np.searchsorted(self.starts, max_bytes, side="right")) - 1
        end = int(self.starts[self.num_kept])
        if device.type == "cpu":
            self.block = torch.from_numpy(np.empty(end, np.uint8))  # NumPy asks for huge pages, torch does not
        else:
            self.block = torch.empty(end, dtype=torch.uint8, device=device)
        self.used_on = used_on
        self.is_pinned = None if used_on is None or used_on.type == device.type else pin(self.block, used_on)
        self.filled = np.zeros(len(sizes), bool)
        self.order = StreamOrder(self.block)
        _caches.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process the cache is empty, and has room for as much as may be used there."""
        return _empty_cache, (self.sizes, self.device, self.block.numel(), self.used_on)

    def __deepcopy__(self, memo: object) -> MemoryCache:
        """Copies of a Loader in one process share its cache."""
        return self

    def refresh(self) -> None:
        """Does nothing: no other process fills this cache."""

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of the items `ids` (B,) is in the cache: (B,) bool."""
        return self.filled[ids]

    def get(self, i: int, out: np.ndarray) -> np.ndarray | None:
        """Returns the image of item `i`, on the host, or None if it is not there in the shape of `out`, (H, W, 3)."""
        if not self.filled[i] or out.shape[:2] != tuple(self.sizes[i]):
            return None
        return self.block.numpy()[self.starts[i] : self.starts[i + 1]].reshape(out.shape)

    def packed(self, ids: np.ndarray) -> kernels.PackedImages:
        """Returns the images of items `ids` (B,), which must be in the cache, where they lie.

        On a GPU, the stream that reads them must have called `order.wait` after this.
        """
        return kernels.PackedImages(self.block, self.starts[ids], self.sizes[ids])

    def put(self, i: int, image: torch.Tensor) -> None:
        """Copies the image (H, W, 3) uint8 of item `i` into the cache, if there is room and it is not there yet.

        An image of another size than that of its item, as of a file that has changed, is not kept.
        """
        if i >= self.num_kept or self.filled[i] or image.shape[:2] != tuple(self.sizes[i]):
            return
        (view,) = self.packed(np.array([i]))
        if view.device.type == image.device.type == "cpu":
            np.copyto(view.numpy(), image.numpy())  # torch would wake its own threads for each image
        else:
            self.order.wait()
            view.copy_(image)
            self.order.wrote()
        self.filled[i] = True


def pin(block: torch.Tensor, device: torch.device) -> bool:
    """Pins a tensor of the host's memory, once and until it is freed, for copies to GPUs. Returns whether that worked.

    torch's own allocator of pinned memory would round a cache's size up to a power of two.
    """
    if block.numel() == 0:
        return False
    runtime, address = torch.cuda.cudart(), block.data_ptr()
    with torch.cuda.device(device):
        if int(runtime.cudaHostRegister(address, block.numel(), FOR_ALL_GPUS)) != 0:
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device=device)  # clears CUDA's error by raising it; a later launch would raise it
            return False
    weakref.finalize(block.untyped_storage(), runtime.cudaHostUnregister, address).atexit = False
    return True


def _empty_cache(sizes: np.ndarray, device: torch.device, max_bytes: int, used_on: torch.device | None) -> MemoryCache:
    """A cache of at most `max_bytes`, and of at most `room_in_memory`."""
    return MemoryCache(sizes, device, min(max_bytes, room_in_memory(device, free_bytes(device))), used_on)


def room_in_memory(device: torch.device, free: int, cache_gb: float | None = None) -> int:
    """The bytes that a cache may take of the `free` ones of a device: `cache_gb`, or half of them.

    By default, RESERVED_BYTES are left for training and decoding on a GPU, however many caches there are. On the host,
    the processes of this machine divide them.
    """
    if cache_gb is not None:  # a GPU allocates it at once; on the host, `free` is an estimate
        return min(int(cache_gb * 1e9), free) if device.type == "cuda" else int(cache_gb * 1e9)
    if device.type == "cuda":
        return max(0, min(free // 2, free - RESERVED_BYTES))
    return free // 2 // num_local_processes()


def num_bytes(sizes: np.ndarray) -> np.ndarray:
    """Returns the bytes (N,) of images of the sizes (N, 2)."""
    return sizes.astype(np.int64).prod(axis=-1) * 3


def free_bytes(device: torch.device) -> int:
    """Returns the free bytes of a device; on the host, less what existing caches have reserved but not yet written."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    reserved = sum(cache.block.numel() - int(num_bytes(cache.sizes[cache.filled]).sum())
                   for cache in list(_caches) if cache.device == device and not cache.is_pinned)  # fmt: skip
    return max(0, free_memory() - reserved)

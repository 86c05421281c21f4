"""Memory for batches on a CPU, reused as soon as nothing refers to the batch that was in it."""

import math
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch

MAX_BUFFERS = 6  # three being made, one in use, one that a training step still refers to, one spare


class Buffers:
    """Allocates tensors as torch.empty does; on a CPU, in memory whose pages are mapped already.

    The operating system maps and clears a new tensor's pages one by one: for float32 batches of 224 px that took 0.2
    of 2.3 ms per image on two cores. Memory is reused only when no tensor or view refers to it. On a GPU torch's
    allocator does the same.
    """

    def __init__(self, device: torch.device, max_buffers: int = MAX_BUFFERS) -> None:
        self.device, self.max_buffers = device, max_buffers
        self._lock = threading.Lock()
        self._slots: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Returns an uninitialised tensor that nothing else refers to."""
        if self.device.type != "cpu":
            return torch.empty(tuple(shape), dtype=dtype, device=self.device)
        num_bytes = math.prod(shape) * dtype.itemsize
        with self._lock:
            memory = next((m for m, user in self._slots if user() is None and m.nbytes >= num_bytes), None)
            if memory is None:
                memory = np.empty(num_bytes, np.uint8)
            user = memory[:num_bytes]  # kept alive by the tensor's storage, which all views share
            others = [slot for slot in self._slots if slot[0] is not memory]
            self._slots = [*others, (memory, weakref.ref(user))][-self.max_buffers :]
        return torch.from_numpy(user).view(dtype).view(*shape)

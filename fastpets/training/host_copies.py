"""Collects tensors on the host without waiting for the device in each batch."""

from __future__ import annotations

import torch


class HostCopies:
    """The tensors of many batches on the CPU, which are copied as the device computes them. Only `joined` waits.

    Args:
        empty: what `joined` returns if there is none: (0, ...), of the shape and type of the tensors.
    """

    def __init__(self, empty: torch.Tensor) -> None:
        self._copies = [empty]
        self._device: torch.device | None = None

    def append(self, tensor: torch.Tensor) -> None:
        """Starts the copy of a tensor (n, ...); from a GPU to pinned memory."""
        self._copies.append(tensor.to("cpu", non_blocking=True))
        self._device = tensor.device

    def joined(self) -> torch.Tensor:
        """The tensors one after another, once all copies are complete."""
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return torch.cat(self._copies)

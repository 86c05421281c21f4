"""Engines turn planned batches into tensors: their interface, and the work ahead that they share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar

import torch

from fastpets.loading.planning import PlannedBatch, Planner

T = TypeVar("T")
U = TypeVar("U")


class LoadedBatch(NamedTuple):
    """A planned batch, less its bad files: images (B, H, W, 3) and labels (B,) int64 on the device."""

    planned: PlannedBatch
    images: torch.Tensor
    labels: torch.Tensor


class Engine(Protocol):
    """Turns planned batches into tensors. All that differs between decoders and devices is behind this.

    A Loader keeps its engine for all its epochs, which may run at the same time in several threads.
    """

    def run(self, batches: Iterable[PlannedBatch], planner: Planner) -> Generator[LoadedBatch]:
        """Yields each batch, in order.

        It works ahead of the caller. Batches without a good file are passed over. Closing the iterator ends all work.
        """
        ...


def started_ahead(items: Iterable[T], start: Callable[[T], U], depth: int) -> Iterator[U]:
    """Starts work for `depth` items ahead of the one whose started work it yields."""
    started: deque[U] = deque()
    for item in items:
        started.append(start(item))
        if len(started) > depth:
            yield started.popleft()
    yield from started

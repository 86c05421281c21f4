"""Batches kept in memory in place of a loader, to see what a training would do if loading cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpets.loading.batch import Batch
    from fastpets.loading.loader import Loader


class Replay:
    """The first batches of a loader's next epoch, over and over; as many of them an epoch as the loader has.

    All else about it (classes, device, mean and std) is the loader's.
    """

    def __init__(self, loader: Loader, num_batches: int) -> None:
        self.loader = loader
        self.batches = list(islice(loader, num_batches))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return islice(cycle(self.batches), len(self.loader))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

"""Engines turn planned batches into tensors: the interface, and which engine a Loader takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch

from fastpets.data.headers import ImageHeaders
from fastpets.loading.bad_files import BadFiles
from fastpets.loading.cache import Cache
from fastpets.loading.planning import PlannedBatch, Planner
from fastpets.utils.validation import DecoderName

T = TypeVar("T")
U = TypeVar("U")


class Engine(Protocol):
    """Turns planned batches into tensors. All that differs between decoders and devices is behind this.

    A Loader keeps its engine for all its epochs, which may run at the same time in several threads.
    """

    def run(self, batches: Iterable[PlannedBatch], planner: Planner) -> Generator[tuple[PlannedBatch, torch.Tensor]]:
        """Yields each batch, less its bad files, with its images (B, H, W, 3) on the device, in order.

        It works ahead of the caller. Batches without a good file are passed over. Closing the iterator ends all work.
        """
        ...


def make_engine(
    decoder: DecoderName,
    paths: Sequence[str],
    headers: ImageHeaders,
    bad_files: BadFiles,
    cache: Cache | None,
    *,
    device: torch.device,
    batch_size: int,
    num_threads: int,
    hw_decoder_load: float,
) -> Engine:
    """Returns a CpuEngine, or a DaliEngine for a GPU or if `decoder` is "dali". Each is imported only if it is used."""
    if device.type == "cpu" and decoder == "auto":
        from fastpets.loading.cpu_engine import CpuEngine

        return CpuEngine(paths, headers, bad_files, cache, num_threads)
    from fastpets.loading.dali_engine import DaliEngine

    return DaliEngine(
        paths, headers, bad_files, cache, device=device, batch_size=batch_size, num_threads=num_threads,
        hw_decoder_load=hw_decoder_load,
    )  # fmt: skip


def started_ahead(items: Iterable[T], start: Callable[[T], U], depth: int) -> Iterator[U]:
    """Starts work for `depth` items ahead of the one whose started work it yields."""
    started: deque[U] = deque()
    for item in items:
        started.append(start(item))
        if len(started) > depth:
            yield started.popleft()
    yield from started

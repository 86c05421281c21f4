"""Measures how long training waits for images; on a GPU by its own clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch


class InputTimer:
    """Times the gaps between the training steps of an epoch.

    On a GPU a gap is the time on its stream from the end of one step to the start of the next, in which it is idle or
    makes the batch. On a CPU it is the time in which the next batch is fetched.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_gpu = device, device.type == "cuda"
        self.gaps: list[tuple[Any, Any]] = []
        self.started = time.perf_counter()

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the same batches and times each."""
        iterator = iter(batches)
        try:
            while True:
                before = self._now()
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
                self.gaps.append((before, self._now()))
                yield batch
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def elapsed(self) -> tuple[float, float]:
        """Seconds spent waiting for images, and seconds since this was made. Waits for the GPU."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
            waited_s = sum(before.elapsed_time(after) for before, after in self.gaps) / 1000
        else:
            waited_s = sum(after - before for before, after in self.gaps)
        return waited_s, time.perf_counter() - self.started

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

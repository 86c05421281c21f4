"""Measures how long training waits for images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch


class InputTimer:
    """Measures the gaps between the training steps of an epoch.

    On a CPU, a gap is the time that it takes to fetch the next batch. On a GPU, it is the time between the end of one
    step and the start of the next, by events on the GPU's stream: the GPU is idle then, or it decodes and warps images.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_gpu = device, device.type == "cuda"
        self.gaps: list[tuple[Any, Any]] = []
        self.started = time.perf_counter()

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the batches, and measures the gap before each."""
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
        """The sum of the gaps, and the time since the timer was created, both in seconds. Waits for the GPU."""
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

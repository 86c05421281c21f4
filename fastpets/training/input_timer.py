"""How long training waits for its images, measured where the work is: on the GPU by its own clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch


class InputTimer:
    """Times what comes between the steps of an epoch.

    On a GPU these are the stretches of its stream between the end of one step and the begin of the next: where it idles
    or makes the batch. What a CPU trains waits while the next batch is fetched.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_gpu = device, device.type == "cuda"
        self.spans: list[tuple[Any, Any]] = []
        self.started = time.perf_counter()

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches."""
        iterator = iter(batches)
        try:
            while True:
                before = self._now()
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
                self.spans.append((before, self._now()))
                yield batch
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def elapsed(self) -> tuple[float, float]:
        """Seconds waited for images, and seconds in all, until now."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
            waited = sum(before.elapsed_time(after) for before, after in self.spans) / 1000
        else:
            waited = sum(after - before for before, after in self.spans)
        return waited, time.perf_counter() - self.started

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

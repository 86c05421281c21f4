"""An epoch that begins before its loop: a thread makes its first batch, while the caller does other work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

import numpy as np
import torch

from fastpets.loading.engine import LoadedBatch
from fastpets.loading.planning import Planner
from fastpets.loading.pool import Pool
from fastpets.loading.sampler import EpochPlan


class PreparedEpoch:
    """The batches of an epoch, from an engine's `run`, whose first one is being made.

    On a GPU it is made on the stream that is the current one now.
    """

    def __init__(self, plan: EpochPlan, planner: Planner, run: Generator[LoadedBatch], device: torch.device) -> None:
        self.plan, self.planner, self._run = plan, planner, run
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._process = os.getpid()
        thread = Pool(1)
        self._first = thread.submit(self._make_first)
        thread.shutdown(wait=False)

    def _make_first(self) -> LoadedBatch | None:
        with contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            return next(self._run, None)

    def is_for(self, plan: EpochPlan, planner: Planner) -> bool:
        """Whether these are the batches of this plan and planner. A forked process, which has no threads, has none."""
        return (
            os.getpid() == self._process
            and self.planner == planner
            and self.plan.batches == plan.batches
            and np.array_equal(self.plan.ids, plan.ids)
        )

    def batches(self) -> Generator[LoadedBatch]:
        """The batches. What went wrong with the first one is raised here."""
        try:
            first = self._first.result()
            del self._first  # it would keep the batch in memory
            if first is not None:
                self._hand_over(first)
                yield first
                del first
                yield from self._run
        finally:
            self._run.close()

    def _hand_over(self, batch: LoadedBatch) -> None:
        """Makes the current stream wait for a batch that another one makes."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._stream.device)
            current.wait_stream(self._stream)
            batch.images.record_stream(current)
            batch.labels.record_stream(current)

    def close(self) -> None:
        """Ends all work, once the first batch is made."""
        if os.getpid() == self._process:
            self._first.exception()
            self._run.close()

"""An epoch that begins before its loop: a thread makes its first batch, while the caller does other work."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator
from concurrent.futures import wait

import numpy as np
import torch

from fastpets.loading.engine import LoadedBatch
from fastpets.loading.planning import Planner
from fastpets.loading.pool import Pool
from fastpets.loading.sampler import EpochPlan

_inherited: list[PreparedEpoch] = []  # by a forked process, in which ending them would wait for the parent's threads


class PreparedEpoch:
    """An epoch whose first batch a thread is making; the loop that takes it makes the others.

    `rest` are the batches of `plan` and `planner`, from an engine. On a GPU the first one is made on the stream that is
    the current one now.
    """

    def __init__(self, plan: EpochPlan, planner: Planner, rest: Generator[LoadedBatch], device: torch.device) -> None:
        self._plan, self._planner, self._rest = plan, planner, rest
        self._first: list[LoadedBatch] = []
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._process = os.getpid()
        thread = Pool(1)
        self.is_made = thread.submit(self._make_first)
        thread.shutdown(wait=False)

    def _make_first(self) -> None:
        with contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            self._first += itertools.islice(self._rest, 1)

    def is_for(self, plan: EpochPlan, planner: Planner) -> bool:
        """Whether a loop over this plan, with this planner, may take it. In a forked process, its thread is missing."""
        return (
            os.getpid() == self._process
            and self._planner == planner
            and self._plan.batches == plan.batches
            and np.array_equal(self._plan.ids, plan.ids)
        )

    def batches(self) -> Generator[LoadedBatch]:
        """The batches. What went wrong with the first one is raised here."""
        try:
            self.is_made.result()
            if self._first:
                self._hand_over(self._first[0])
                yield self._first.pop()  # nothing else keeps it in memory
            yield from self._rest
        finally:
            self.close()

    def _hand_over(self, batch: LoadedBatch) -> None:
        """Makes the current stream wait for the one that makes a batch, and keeps its memory until both are done."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._stream.device)
            current.wait_stream(self._stream)
            batch.images.record_stream(current)
            batch.labels.record_stream(current)

    def close(self) -> None:
        """Ends all work, once the first batch is made."""
        if os.getpid() != self._process:
            _inherited.append(self)
            return
        wait([self.is_made])
        self._first.clear()
        self._rest.close()

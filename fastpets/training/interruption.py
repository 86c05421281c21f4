"""Defers SIGINT and SIGTERM during training to the end of a step."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from fastpets.training import distributed

AGREE_EVERY = 16  # several processes exchange whether a signal came in every 16th step, since the GPU waits for it


class Interrupted(Exception):
    """Training was asked to stop by signal `number`. It can resume from its current state."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Interruption:
    """Defers SIGINT and SIGTERM to a step boundary, so that checkpoints are consistent.

    Inside this context manager, this callback raises Interrupted after a first signal. A second one raises
    KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.number, self.num_steps = 0, 0

    def __enter__(self) -> Interruption:
        self.previous_handlers = {
            number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def on_step_end(self, learner: object) -> None:
        """Raises Interrupted if a signal came; with several processes, in all of them after the same step."""
        self.num_steps += 1
        if distributed.world_size() > 1:
            if self.num_steps % AGREE_EVERY or not distributed.any_rank(bool(self.number)):
                return
        elif not self.number:
            return
        raise Interrupted(self.number or signal.SIGTERM)

    def on_validation_batch_end(self, learner: object) -> None:
        """Raises Interrupted if a signal came. Several processes have their own numbers of batches: they wait."""
        if self.number and distributed.world_size() == 1:
            raise Interrupted(self.number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number

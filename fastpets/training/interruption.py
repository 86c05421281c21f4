"""Ctrl-C and SIGTERM as a wish that training looks at between two steps, so that what it leaves is whole."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from fastpets.training import distributed

AGREE_EVERY = 16  # steps of several processes: to ask all of them costs a message, which a GPU has to be waited for


class Interrupted(Exception):
    """Training was asked to stop, and can go on from where it is."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Interruption:
    """Within it, the first SIGINT or SIGTERM is noted, and a second one ends the process at once."""

    def __init__(self) -> None:
        self.number, self.num_looks = 0, 0

    def __enter__(self) -> Interruption:
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Interrupted if a signal came: with several processes, in all of them after the same step."""
        self.num_looks += 1
        if distributed.world_size() > 1:
            if self.num_looks % AGREE_EVERY or not distributed.any_of(bool(self.number)):
                return
        elif not self.number:
            return
        raise Interrupted(self.number or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number

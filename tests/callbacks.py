"""A callback that interrupts training."""


class Stopped(Exception):
    """Raised by a callback."""


class Stops:
    """Raises Stopped at each optimizer step and validation batch, or only at the `at`-th of these, counted from 1."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.count = at, 0

    def on_step_end(self, learner: object) -> None:
        self.count += 1
        if self.at in (None, self.count):
            raise Stopped

    on_validation_batch_end = on_step_end

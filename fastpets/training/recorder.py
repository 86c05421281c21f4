"""The losses and rates of all steps, and the training loss as it is shown."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch

from fastpets.errors import FastpetsError
from fastpets.training import distributed

SMOOTHING = 0.98
LAG = 2  # steps: a loss is read when so many more are under way, so that a GPU never waits to be told what comes next


class Step(NamedTuple):
    """A step whose loss may still be on its way from the device."""

    loss: torch.Tensor
    copied: torch.cuda.Event | None
    lr: float
    ids: np.ndarray | None


class Recorder:
    """`losses` and `rates` of all steps, and their smoothed value as fastai shows it.

    That is an average over a phase's steps, each weighing 0.98 of the next. With several processes, the losses of an
    epoch are means over all of them once it is over.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.smoothed: list[float] = []
        self._pending: deque[Step] = deque()
        self._averaged = 0  # losses that are means over all processes already
        self.begin_phase()

    def begin_phase(self) -> None:
        """Begins the average anew."""
        self.average, self.num_averaged = 0.0, 0

    def add(self, loss: torch.Tensor, lr: float, ids: np.ndarray | None = None) -> None:
        """Takes in a step's loss, without its graph. Raises FastpetsError if one of those before is not finite."""
        copied = None
        if loss.device.type == "cuda":
            stream = torch.cuda.current_stream(loss.device)
            loss = torch.empty((), pin_memory=True).copy_(loss, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(stream)
        self._pending.append(Step(loss, copied, lr, ids))
        if len(self._pending) > LAG:
            self._settle()

    def settle(self) -> None:
        """Waits for the losses that are still on their way. Raises FastpetsError if one is not finite."""
        while self._pending:
            self._settle()

    def end_epoch(self) -> float:
        """The smoothed loss, after all processes have agreed on the epoch's losses."""
        self.settle()
        if distributed.world_size() > 1:
            new = [*self.losses[self._averaged :], self.average]
            *means, self.average = distributed.mean(torch.tensor(new, dtype=torch.float64)).tolist()
            self.losses[self._averaged :] = means
        self._averaged = len(self.losses)
        return self.value()

    def value(self) -> float:
        """The average, freed of its start from 0."""
        return self.average / (1 - SMOOTHING**self.num_averaged) if self.num_averaged else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """All of it, for `load_state_dict`."""
        self.settle()
        kept = {
            name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("losses", "rates", "smoothed")
        }
        return {**kept, "average": self.average, "num_averaged": self.num_averaged, "agreed": self._averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        self.losses, self.rates, self.smoothed = (state[name].tolist() for name in ("losses", "rates", "smoothed"))
        self.average, self.num_averaged, self._averaged = state["average"], state["num_averaged"], state["agreed"]
        self._pending.clear()

    def _settle(self) -> None:
        step = self._pending.popleft()
        if step.copied is not None:
            step.copied.synchronize()
        loss = step.loss.item()
        if not math.isfinite(loss):
            number, self._pending = len(self.losses) + 1, deque()
            shown = "" if step.ids is None else f" on the images {' '.join(map(str, step.ids))}"
            raise FastpetsError(
                f"the loss of batch {number} is {loss}, at a learning rate of {step.lr:.2e}{shown}: take a lower --lr, "
                "--clip-norm 1, or --amp-dtype bfloat16 if it was float16, and look at these images"
            )
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.num_averaged += 1
        self.losses.append(loss)
        self.rates.append(step.lr)
        self.smoothed.append(self.value())

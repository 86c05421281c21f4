"""Records the loss and the learning rate of each training batch, and fastai's smoothed loss."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch

from fastpets.errors import FastpetsError
from fastpets.training import distributed

SMOOTHING = 0.98
LAG = 2  # batches; a loss is read when this many later ones are queued, so that the GPU never waits for the CPU


class PendingLoss(NamedTuple):
    """A batch's loss, which the device may not have computed yet."""

    loss: torch.Tensor
    copied: torch.cuda.Event | None
    lr: float
    ids: np.ndarray | None


class Recorder:
    """Records losses and learning rates.

    Attributes:
        losses: of all batches. With several processes, the end of each epoch replaces them by the means over all.
        rates: the head's learning rate of each batch.
        smoothed: fastai's smoothed loss after each batch, of this process: an exponential moving average over the
            phase, with weight 0.98 on the past and corrected for its start from 0.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.smoothed: list[float] = []
        self._pending: deque[PendingLoss] = deque()
        self._num_synced = 0  # losses that are means over all processes already
        self.begin_phase()

    def begin_phase(self) -> None:
        """Restarts the smoothed loss, after pending losses of an interrupted phase."""
        self.wait()
        self.average, self.num_averaged = 0.0, 0

    def add(self, loss: torch.Tensor, lr: float, ids: np.ndarray | None = None) -> None:
        """Adds a batch's loss, detached. Raises FastpetsError if an earlier one is not finite."""
        copied = None
        if loss.device.type == "cuda":
            stream = torch.cuda.current_stream(loss.device)
            loss = torch.empty((), pin_memory=True).copy_(loss, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(stream)
        self._pending.append(PendingLoss(loss, copied, lr, ids))
        if len(self._pending) > LAG:
            self._record_oldest()

    def wait(self) -> None:
        """Waits for all pending losses. Raises FastpetsError if one is not finite."""
        while self._pending:
            self._record_oldest()

    def end_epoch(self) -> None:
        """Averages the epoch's losses and the smoothed loss over all processes."""
        self.wait()
        if distributed.world_size() > 1:
            new = [*self.losses[self._num_synced :], self.average]
            *means, self.average = distributed.mean(torch.tensor(new, dtype=torch.float64)).tolist()
            self.losses[self._num_synced :] = means
        self._num_synced = len(self.losses)

    def smoothed_loss(self) -> float:
        """The smoothed loss; NaN before the first batch of a phase."""
        return self.average / (1 - SMOOTHING**self.num_averaged) if self.num_averaged else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """The state, with the lists as float64 tensors. Waits for pending losses."""
        self.wait()
        lists = {
            name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("losses", "rates", "smoothed")
        }
        return {**lists, "average": self.average, "num_averaged": self.num_averaged, "num_synced": self._num_synced}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`."""
        self.losses, self.rates, self.smoothed = (state[name].tolist() for name in ("losses", "rates", "smoothed"))
        self.average, self.num_averaged, self._num_synced = (
            state[name] for name in ("average", "num_averaged", "num_synced")
        )
        self._pending.clear()

    def _record_oldest(self) -> None:
        pending = self._pending.popleft()
        if pending.copied is not None:
            pending.copied.synchronize()
        loss = pending.loss.item()
        if not math.isfinite(loss):
            number, self._pending = len(self.losses) + 1, deque()
            items = "" if pending.ids is None else f" on the items {' '.join(map(str, pending.ids))} of train.dataset"
            raise FastpetsError(
                f"the loss of batch {number} is {loss}, at a learning rate of {pending.lr:.2e}{items}; use a lower "
                "lr, clip_norm=1, or amp_dtype='bfloat16' if it was float16, and look at these images"
            )
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.num_averaged += 1
        self.losses.append(loss)
        self.rates.append(pending.lr)
        self.smoothed.append(self.smoothed_loss())

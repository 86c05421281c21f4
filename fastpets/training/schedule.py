"""Learning rates: one for each layer group, and the one-cycle policy through the steps of a phase."""

from collections.abc import Sequence

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from fastpets.training.phases import Rate

MOMENTUM_LOW, MOMENTUM_HIGH = 0.85, 0.95
FINAL_DIV = 1e5  # the last step's rate is the highest one's 1e-5


def group_rates(rate: Rate, num_groups: int) -> list[float]:
    """The highest rate of each layer group, spread geometrically over a range, as fastai reads numbers and slices."""
    if not isinstance(rate, slice):
        return [float(rate)] * num_groups
    if rate.start is None:
        return [rate.stop / 10] * (num_groups - 1) + [float(rate.stop)]
    return [float(r) for r in np.geomspace(rate.start, rate.stop, num_groups)]


def one_cycle(
    optimizer: Optimizer, rates: Sequence[float], num_steps: int, *, pct_start: float, div: float, first_step: int = 0
) -> OneCycleLR:
    """The scheduler of fastai's one cycle: from rate / `div` up during `pct_start` of the steps, then down to 1e-5.

    `rates` has one for each of the optimizer's parameter groups. fastai takes step i of N at position i / N, torch
    at i / (N - 1): one more step than are taken, and a share to match, make them equal (to 1e-11 relative).
    """
    num_steps = max(1, num_steps)  # of no epochs
    scheduler = OneCycleLR(
        optimizer,
        max_lr=list(rates),
        total_steps=num_steps + 1,
        pct_start=(pct_start * num_steps + 1) / (num_steps + 1),
        div_factor=div,
        final_div_factor=FINAL_DIV / div,
        base_momentum=MOMENTUM_LOW,
        max_momentum=MOMENTUM_HIGH,
    )
    if first_step:
        # Its rates are a function of the step alone; the second number tells it that the optimizer has stepped.
        scheduler.load_state_dict({"last_epoch": first_step - 1, "_step_count": first_step + 1})
        scheduler.step()
    return scheduler

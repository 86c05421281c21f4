"""Learning rates of the layer groups, the one-cycle policy, and progressive resizing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from fastpets.training.phases import Rate

MOMENTUM_LOW, MOMENTUM_HIGH = 0.85, 0.95
FINAL_DIV = 1e5  # the last rate is the highest one divided by this
SIZE_STEP_PX = 32  # most networks halve their input five times, so that multiples of 32 px divide evenly


def group_rates(rate: Rate, num_groups: int) -> list[float]:
    """The highest rate of each layer group, from a number or a range as defined by `Rate`, as in fastai."""
    if not isinstance(rate, slice):
        return [float(rate)] * num_groups
    if rate.start is None:
        return [rate.stop / 10] * (num_groups - 1) + [float(rate.stop)]
    return [float(r) for r in np.geomspace(rate.start, rate.stop, num_groups)]


def one_cycle(
    optimizer: Optimizer, rates: Sequence[float], num_steps: int, *, pct_start: float, div: float, first_step: int = 0
) -> OneCycleLR:
    """fastai's one-cycle policy: the rate rises from rate / `div` during `pct_start` of the steps, then falls.

    Args:
        rates: the highest rate of each of the optimizer's parameter groups.
        num_steps: optimizer steps in the cycle.
        first_step: number of steps of the cycle that are already done, if training resumes.
    """
    # Step i of N has the position i / N in fastai's cycle and i / (N - 1) in torch's. With N + 1 steps, of which the
    # last one is not taken, and `pct_start` converted to them, torch's rates equal fastai's to 1e-11 relative.
    num_steps = max(1, num_steps)
    settings: dict[str, Any] = {
        "max_lr": list(rates),
        "total_steps": num_steps + 1,
        "pct_start": (pct_start * num_steps + 1) / (num_steps + 1),
        "div_factor": div,
        "final_div_factor": FINAL_DIV / div,
        "base_momentum": MOMENTUM_LOW,
        "max_momentum": MOMENTUM_HIGH,
    }
    scheduler = OneCycleLR(optimizer, **settings)
    if first_step:  # to resume, torch reads the limits that a first scheduler has stored in the parameter groups
        scheduler = OneCycleLR(optimizer, **settings, last_epoch=first_step - 1)
    return scheduler


def progressive_size(initial: tuple[int, int], final: tuple[int, int], done: float) -> tuple[int, int]:
    """Height and width of the training images in pixels.

    They grow from `initial` in the first epoch, where `done` is 0, in steps of SIZE_STEP_PX to `final` in the last
    epoch, where it is 1.
    """
    if done >= 1:
        return final
    height, width = (
        min(high, low + round((high - low) * done / SIZE_STEP_PX) * SIZE_STEP_PX)
        for low, high in zip(initial, final, strict=True)
    )
    return height, width

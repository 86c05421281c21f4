"""Learning rates of the layer groups, the one-cycle policy, and image sizes that grow from epoch to epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from fastpets.training.phases import Rate

MOMENTUM_LOW, MOMENTUM_HIGH = 0.85, 0.95
FINAL_DIV = 1e5  # the last rate is the highest one divided by this
SIZE_STEP_PX = 32  # a network that halves its feature map five times wants multiples of this


def group_rates(rate: Rate, num_groups: int) -> list[float]:
    """The highest rate of each layer group: spread geometrically over a range, as fastai reads numbers and slices."""
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
        first_step: steps of the cycle that were taken before, when training resumes.
    """
    # fastai takes step i of N at position i / N, torch at i / (N - 1). One more step than are taken, with `pct_start`
    # adapted to it, makes both equal, to 1e-11 relative.
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
    if first_step:  # torch resumes a cycle from the limits that the first scheduler left in the parameter groups
        scheduler = OneCycleLR(optimizer, **settings, last_epoch=first_step - 1)
    return scheduler


def progressive_size(initial: tuple[int, int], final: tuple[int, int], progress: float) -> tuple[int, int]:
    """Height and width of training images in pixels when `progress` (0 to 1) of the epochs are over.

    They grow in steps of SIZE_STEP_PX from `initial` to `final`.
    """
    if progress >= 1:
        return final
    height, width = (
        min(high, low + round((high - low) * progress / SIZE_STEP_PX) * SIZE_STEP_PX)
        for low, high in zip(initial, final, strict=True)
    )
    return height, width

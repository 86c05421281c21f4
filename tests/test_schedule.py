"""The schedule is fastai's: its formula in float64, for every group and step."""

import math

import pytest
import torch

from fastpets.schedule import group_rates, one_cycle


def cosine(start: float, end: float, position: float) -> float:
    """fastai's SchedCos."""
    return start + (1 + math.cos(math.pi * (1 - position))) * (end - start) / 2


def fastai_value(start: float, middle: float, end: float, pct_start: float, position: float) -> float:
    """fastai's combined_cos: up to `middle` during `pct_start`, then down to `end`."""
    if position < pct_start:
        return cosine(start, middle, position / pct_start)
    return cosine(middle, end, (position - pct_start) / (1 - pct_start))


@pytest.mark.parametrize(("pct_start", "div"), [(0.25, 25.0), (0.3, 5.0), (0.99, 25.0)])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 10, 92, 1104])
def test_rates_and_momenta_are_fastais_at_every_step(num_steps: int, pct_start: float, div: float) -> None:
    rates = [1e-5, 3e-3]
    parameters = [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in rates]
    optimizer = torch.optim.AdamW([{"params": [p], "lr": 1.0} for p in parameters], betas=(0.95, 0.99))
    scheduler = one_cycle(optimizer, rates, num_steps, pct_start=pct_start, div=div)
    for step in range(num_steps):
        position = step / num_steps
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            expected = fastai_value(rate / div, rate, rate / 1e5, pct_start, position)
            assert group["lr"] == pytest.approx(expected, rel=1e-9)
            assert group["betas"][0] == pytest.approx(fastai_value(0.95, 0.85, 0.95, pct_start, position), rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (2e-3, [2e-3, 2e-3, 2e-3]),
        (slice(2e-3), [2e-4, 2e-4, 2e-3]),
        (slice(1e-6, 1e-4), [1e-6, 1e-5, 1e-4]),
    ],
)
def test_a_rate_or_a_range_gives_each_layer_group_its_own(rate: float | slice, expected: list[float]) -> None:
    assert group_rates(rate, 3) == pytest.approx(expected, rel=1e-12)


def test_one_group_takes_the_ranges_end() -> None:
    assert group_rates(slice(3e-3), 1) == [3e-3]

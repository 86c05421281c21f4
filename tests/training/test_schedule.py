"""The schedule is fastai's: its formula in float64, for every group and step, and what its own runs recorded."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpets.errors import FastpetsError
from fastpets.training.phases import Phase, fine_tune_phases, parse_rate, parse_schedule
from fastpets.training.schedule import group_rates, one_cycle

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "fastai_schedule.json").read_text())


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


def phases_of(fit: dict[str, Any]) -> list[Phase]:
    if fit["call"] == "fine_tune":
        return fine_tune_phases(fit["epochs"], fit["lr"], fit["freeze_epochs"])
    lr = slice(*fit["lr"]) if isinstance(fit["lr"], list) else fit["lr"]
    return [Phase(name="one cycle", epochs=fit["epochs"], lr=lr)]


@pytest.mark.parametrize("fit", GOLDEN["fits"], ids=lambda fit: f"{fit['call']} {fit['lr']}")
def test_whole_fits_have_the_rates_and_momenta_that_fastai_recorded(fit: dict[str, Any]) -> None:
    steps = iter(fit["steps"])
    for phase in phases_of(fit):
        parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
        optimizer = torch.optim.AdamW([{"params": [p], "lr": 1.0} for p in parameters], betas=(0.9, 0.99))
        num_steps = phase.epochs * GOLDEN["num_batches"]
        rates = group_rates(phase.lr, 3)
        scheduler = one_cycle(optimizer, rates, num_steps, pct_start=phase.pct_start, div=phase.div)
        for _ in range(num_steps):
            recorded = next(steps)
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(recorded["lr"], rel=1e-4)
            assert [group["betas"][0] for group in optimizer.param_groups] == pytest.approx(recorded["mom"], rel=1e-4)
            optimizer.step()
            scheduler.step()
    assert next(steps, None) is None


@pytest.mark.parametrize("first_step", [1, 2, 7, 19, 20])
def test_a_cycle_can_be_taken_up_at_any_step_to_the_bit(first_step: int) -> None:
    def groups_after(first: int) -> list[tuple[float, float]]:
        optimizer = torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}], betas=(0.9, 0.99))
        scheduler = one_cycle(optimizer, [3e-3], 20, pct_start=0.3, div=5, first_step=first)
        found = []
        for _ in range(first, 20):
            found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
            optimizer.step()
            scheduler.step()
        return found

    assert groups_after(first_step) == groups_after(0)[first_step:]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1e-3", 1e-3),
        ("1e-6:1e-4", slice(1e-6, 1e-4)),
        (":2e-3", slice(None, 2e-3)),
        ("auto", "auto"),
    ],
)
def test_rates_are_written_as_numbers_or_ranges(text: str, rate: Any) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "1e-3:", "1:2:3", "-1", "0", "nan", "inf", "1e-3:automatic"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(FastpetsError, match="expected a number, a range as 1e-6:1e-4, or auto"):
        parse_rate(text)


def test_a_schedule_is_phases_of_one_cycle() -> None:
    frozen, unfrozen = parse_schedule("frozen 3 3e-3, unfrozen 12 1e-6:1e-4")
    assert frozen == Phase(name="frozen", epochs=3, lr=3e-3, frozen_to=-1)
    assert unfrozen == Phase(name="unfrozen", epochs=12, lr=slice(1e-6, 1e-4), frozen_to=0)


@pytest.mark.parametrize("text", ["", "frozen", "frozen 3", "thawed 3 1e-3", "frozen three 1e-3", "frozen 3 1e-3,"])
def test_what_is_no_schedule_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(FastpetsError, match="as in 'frozen 3 3e-3, unfrozen 12 1e-6:1e-4'"):
        parse_schedule(text)


def test_fine_tuning_at_a_range_takes_it_for_all_layers_and_its_end_for_the_head() -> None:
    frozen, unfrozen = fine_tune_phases(3, slice(1e-6, 1e-4), 1)
    assert (frozen.lr, unfrozen.lr) == (slice(1e-4), slice(1e-6, 1e-4))

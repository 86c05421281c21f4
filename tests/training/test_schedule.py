"""Schedules against fastai's formulas in float64, for every group and step, and against recordings of its own runs."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.training.phases import Phase, fine_tune_phases, parse_rate, parse_schedule
from fastpets.training.schedule import group_rates, one_cycle, progressive_size

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
def test_rates_and_momenta_are_fastais_in_every_step(num_steps: int, pct_start: float, div: float) -> None:
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
def test_a_rate_or_a_range_gives_a_rate_for_each_layer_group(rate: float | slice, expected: list[float]) -> None:
    assert group_rates(rate, 3) == pytest.approx(expected, rel=1e-12)


def test_a_single_layer_group_has_the_end_of_the_range() -> None:
    assert group_rates(slice(3e-3), 1) == [3e-3]


def phases_of(fit: dict[str, Any]) -> list[Phase]:
    if fit["call"] == "fine_tune":
        return fine_tune_phases(fit["epochs"], fit["lr"], fit["freeze_epochs"])
    lr = slice(*fit["lr"]) if isinstance(fit["lr"], list) else fit["lr"]
    return [Phase(name="one cycle", epochs=fit["epochs"], lr=lr)]


@pytest.mark.parametrize("fit", GOLDEN["fits"], ids=lambda fit: f"{fit['call']} {fit['lr']}")
def test_rates_and_momenta_of_whole_fits_are_those_that_fastai_recorded(fit: dict[str, Any]) -> None:
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
def test_a_cycle_resumes_bit_exactly_at_any_step_without_warnings(first_step: int) -> None:
    def groups_after(first: int) -> list[tuple[float, float]]:
        optimizer = torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}], betas=(0.9, 0.99))
        scheduler = one_cycle(optimizer, [3e-3], 20, pct_start=0.3, div=5, first_step=first)
        found = []
        for _ in range(first, 20):
            found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
            optimizer.step()
            scheduler.step()
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert groups_after(first_step) == groups_after(0)[first_step:]


@pytest.mark.parametrize(
    ("progress", "size"),
    [(0, (32, 64)), (0.25, (64, 96)), (0.5, (96, 128)), (0.75, (128, 160)), (1, (160, 200))],
)
def test_sizes_grow_in_steps_of_32_px_up_to_the_final_size(progress: float, size: tuple[int, int]) -> None:
    assert progressive_size((32, 64), (160, 200), progress) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1e-3", 1e-3),
        ("1e-6:1e-4", slice(1e-6, 1e-4)),
        (":2e-3", slice(None, 2e-3)),
        ("auto", "auto"),
    ],
)
def test_rates_are_parsed_from_numbers_and_ranges(text: str, rate: Any) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "1e-3:", "1:2:3", "-1", "0", "nan", "inf", "1e-3:automatic"])
def test_other_strings_are_rejected_as_rates(text: str) -> None:
    with pytest.raises(
        FastpetsError, match=r"^lr: '.*', expected a number from 1e-12 to 1000, a range as 1e-6:1e-4, or auto"
    ):
        parse_rate(text)


def test_a_schedule_is_parsed_into_phases() -> None:
    frozen, unfrozen = parse_schedule("frozen 3 3e-3, unfrozen 12 1e-6:1e-4")
    assert frozen == Phase(name="frozen", epochs=3, lr=3e-3, frozen_to=-1)
    assert unfrozen == Phase(name="unfrozen", epochs=12, lr=slice(1e-6, 1e-4), frozen_to=0)


@pytest.mark.parametrize("text", ["", "frozen", "frozen 3", "thawed 3 1e-3", "frozen three 1e-3", "frozen 3 1e-3,"])
def test_other_strings_are_rejected_as_schedules_with_an_example(text: str) -> None:
    with pytest.raises(FastpetsError, match="as in 'frozen 3 3e-3, unfrozen 12 1e-6:1e-4'"):
        parse_schedule(text)


def test_fine_tuning_with_a_range_trains_the_head_at_its_end_and_then_all_layers_over_it() -> None:
    frozen, unfrozen = fine_tune_phases(3, slice(1e-6, 1e-4), 1)
    assert (frozen.lr, unfrozen.lr) == (slice(1e-4), slice(1e-6, 1e-4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "epochs: -1, expected a value from 0 to 100000"),
        ({"epochs": 1.5}, "epochs: 1.5, expected an integer"),
        ({"lr": 0.0}, "lr: 0.0, expected a value from 1e-12 to 1000"),
        ({"lr": slice(1e-6, -1e-4)}, "lr: -0.0001, expected a value from 1e-12 to 1000"),
        ({"lr": "fast"}, r"lr: 'fast', expected a number, slice\(FROM, TO\), slice\(TO\) or 'auto'"),
        ({"pct_start": 25}, "pct_start: 25, expected a value from 0 to 1"),
        ({"div": 0}, "div: 0, expected a value from 1 to"),
    ],
)
def test_impossible_phases_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        Phase(**{"name": "a", "epochs": 1, "lr": 1e-3, **changes})

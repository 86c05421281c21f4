"""The learning rate finder: fastai's suggestions for a curve, and a learner that is the same afterwards."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastpets
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.training.learner import Learner
from fastpets.training.lr_finder import RateCurve
from fastpets.training.options import TrainingOptions
from tests.small_resnet import small_resnet

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "fastai_schedule.json").read_text())["curves"]


def curve_of(losses: list[float | None]) -> RateCurve:
    values = np.array([math.nan if loss is None else loss for loss in losses])
    return RateCurve(1e-7 * 1e8 ** (np.arange(len(values)) / 100), values)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["name"])
def test_suggestions_are_fastais_for_the_same_curve(golden: dict[str, Any]) -> None:
    curve = curve_of(golden["losses"])
    for name, rate in golden["suggested"].items():
        assert getattr(curve, name) == pytest.approx(rate, rel=1e-6)  # fastai computes in float32


@pytest.mark.parametrize("losses", [[1.0] * 17, [*([1.0] * 12), *([None] * 30)]])
def test_a_curve_that_is_too_short_for_a_suggestion_is_an_error(losses: list[float | None]) -> None:
    with pytest.raises(FastpetsError, match="too few to suggest a rate"):
        _ = curve_of(losses).valley


def test_the_valley_of_a_curve_that_falls_in_one_step_only_is_not_the_highest_rate() -> None:
    curve = curve_of([3.0] * 10 + [2.0, 1.0, *range(2, 20)] + [50.0] * 5)
    assert curve.valley == curve.rates[10]


def test_a_curve_is_trusted_only_if_the_loss_fell_and_two_suggestions_agree() -> None:
    steps = np.arange(100)
    good = 3 - 2 / (1 + np.exp(-(steps - 60) / 5))
    assert curve_of(good.tolist()).warning() is None
    assert "the loss fell by only 2%" in curve_of((3 - (3 - good) / 33).tolist()).warning()
    noisy = good - 1.5 * (steps == 12)  # a lucky batch at a low rate is the steepest place
    assert re.search("valley and steep differ [0-9]+-fold", curve_of(noisy.tolist()).warning())


def test_a_curve_without_suggestions_is_plotted_without_them(tmp_path: Path) -> None:
    curve_of([1.0, None]).plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps: 0, expected a value from 8 to"),
        ({"lowest": 0}, "lowest: 0, expected a value from 1e-12 to"),
        ({"lowest": 1e-2, "highest": 1e-3}, "highest: 0.001, expected a value from 0.01 to"),
    ],
)
def test_impossible_sweeps_are_rejected(make_folder: Callable[..., Path], arguments: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        make_learner(make_folder(16), TrainingOptions()).lr_find(**arguments)


def make_learner(folder: Path, options: TrainingOptions, **settings: Any) -> Learner:
    train, valid = fastpets.loaders(folder, size=32, batch_size=4, **settings)
    return Learner(train, valid, small_resnet(), options, print_epochs=False)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize("sampler", [None, "balanced"])
def test_the_learners_state_is_restored_to_the_bit(make_folder: Callable[..., Path], sampler: str | None) -> None:
    folder = make_folder(16)  # three batches, which the sweep repeats
    finals = []
    for uses_finder in (True, False):
        learner = make_learner(folder, TrainingOptions(ema=0.9), sampler=sampler)
        learner.train_step.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=64.0, growth_interval=5)
        for _ in range(2):
            if uses_finder:
                before = copy.deepcopy(learner.state_dict())
                curve = learner.lr_find(num_steps=20)
                assert equal(before, learner.state_dict())
                assert learner.history or len(curve.losses) > 3
            learner.fit_one_cycle(1, 1e-3)
        finals.append(learner.state_dict()["train_step"]["model"])
    assert equal(*finals)


def test_a_sweep_ends_when_the_loss_diverges_or_is_nan(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(make_folder(16), TrainingOptions())
    for last, expected in ((400.0, 30), (math.nan, 30)):
        losses = iter([*[2.0 - 0.01 * i for i in range(29)], *[last] * 100])
        monkeypatch.setattr(learner.train_step, "step", lambda *_, losses=losses: torch.tensor(next(losses)))
        curve = learner.lr_find()
        assert len(curve.losses) == expected
        assert curve.rates[:3] == pytest.approx([1e-7 * 1e8 ** (i / 100) for i in range(3)])
        assert 1e-7 < curve.valley < curve.rates[-1]


def test_a_first_loss_that_is_low_by_chance_does_not_end_the_sweep(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(make_folder(16), TrainingOptions())
    losses = iter([0.01, *[2.0 - 0.01 * i for i in range(99)]])
    monkeypatch.setattr(learner.train_step, "step", lambda *_: torch.tensor(next(losses)))
    assert len(learner.lr_find().losses) == 100


def test_the_curve_is_plotted_with_its_suggestions(tmp_path: Path) -> None:
    curve_of(GOLDEN[0]["losses"]).plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_gives_the_two_suggestions_of_fastais_book() -> None:
    curve = curve_of(GOLDEN[0]["losses"])
    lr_min, lr_steep = curve
    assert (lr_min, lr_steep) == (curve.minimum, curve.steep)


def test_curves_are_compared_by_identity() -> None:
    curve, other = curve_of(GOLDEN[0]["losses"]), curve_of(GOLDEN[0]["losses"])
    assert curve != other  # == of the arrays would raise an error

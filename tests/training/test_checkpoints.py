"""Checkpoints: what they bring back to the bit, and what is no checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import fastpets
from fastpets.errors import FastpetsError
from fastpets.models.classifier import create_model
from fastpets.training import checkpoints
from fastpets.training.learner import Learner
from fastpets.training.mixing import make_mix
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase

PHASES = [
    Phase(name="frozen", epochs=1, lr=1e-3, frozen_to=-1),
    Phase(name="unfrozen", epochs=2, lr=slice(1e-5, 1e-3), frozen_to=0),
]
NUM_STEPS = 3 * 2  # two batches of eight an epoch, and with two batches a step, one of each


class Left(Exception):
    """The run is left here."""


def make_learner(folder: Path, options: TrainingOptions, seed: int = 0) -> Learner:
    train, valid = fastpets.loaders(folder, size=32, batch_size=8, cache="host", seed=seed)
    model = create_model("resnet18", 2, "none", seed=seed)
    model.pretrained = True  # as far as freezing goes
    return Learner(train, valid, model, options, on_epoch_end=lambda result: None)


def leave_after(learner: Learner, calls: int) -> None:
    """Has a fit be left at its call number `calls` of what comes after each step and each batch of the validation."""
    count = iter(range(1, 1000))

    def on_step_end() -> None:
        if next(count) == calls:
            raise Left

    learner.on_step_end = on_step_end


def outcome(learner: Learner) -> dict[str, Any]:
    """All that a run ends in, but for what it took in time."""
    timed = ("seconds", "images_per_sec", "input_share")
    results = [{k: v for k, v in vars(result).items() if k not in timed} for result in learner.history]
    return {"state": learner.state_dict()["train_step"], "losses": learner.recorder.smoothed, "results": results}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def test_a_run_goes_on_from_after_any_step_to_the_very_same_weights(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(20)
    options = TrainingOptions(ema_decay=0.9, mix=make_mix("both", 2), clip_norm=1.0)
    whole = make_learner(folder, options)
    whole.fit(PHASES)
    expected = outcome(whole)
    for calls in range(1, NUM_STEPS + 3 + 1):  # a batch of validation each
        left = make_learner(folder, options)
        leave_after(left, calls)
        with pytest.raises(Left):
            left.fit(PHASES)
        torch.manual_seed(calls)  # the caller's state does not matter
        file = checkpoints.save(tmp_path, calls, left.state_dict())
        resumed = make_learner(folder, options, seed=7)  # whose own weights, order and draws the state replaces
        resumed.load_state_dict(checkpoints.load(file))
        resumed.fit(PHASES, resume=True)
        assert_equal(outcome(resumed), expected)


def test_a_run_that_accumulates_goes_on_to_the_very_same_weights(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder, options = (
        make_folder(60),
        TrainingOptions(accumulate=4),
    )  # six batches an epoch: a step of four, and one of two
    whole, left, resumed = (make_learner(folder, options) for _ in range(3))
    whole.fit(PHASES)
    assert whole.train_step.optimizer.state_dict()["state"][0]["step"] == 2 * 2
    leave_after(left, 4)
    with pytest.raises(Left):
        left.fit(PHASES)
    resumed.load_state_dict(checkpoints.load(checkpoints.save(tmp_path, 4, left.state_dict())))
    resumed.fit(PHASES, resume=True)
    assert_equal(outcome(resumed), outcome(whole))


def test_the_last_two_are_kept_and_found(tmp_path: Path) -> None:
    for step in (9, 10, 200):
        checkpoints.save(tmp_path, step, {"step": step})
    names = ["checkpoint-00000010.safetensors", "checkpoint-00000200.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert checkpoints.load(checkpoints.find(tmp_path)) == {"step": 200}
    assert checkpoints.load(checkpoints.find(tmp_path / names[0])) == {"step": 10}


def test_a_state_of_any_shape_comes_back_as_it_was(tmp_path: Path) -> None:
    tree = {
        "a": [1, 2.5, None, True, "text", float("inf")],
        "b": {"c": torch.arange(6).reshape(2, 3), "d": [torch.tensor(1.5), {"e": torch.zeros(0, dtype=torch.uint8)}]},
        "channels last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "twice": [torch.ones(2)] * 2,
    }
    assert_equal(checkpoints.load(checkpoints.save(tmp_path, 1, tree)), tree)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    file = checkpoints.save(tmp_path, 1, {"weights": torch.zeros(100)})
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(FastpetsError, match="not a whole checkpoint"):
        checkpoints.load(file)


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    save_file({"weights": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(FastpetsError, match="weights alone, expected a 'fastpets checkpoint 1'"):
        checkpoints.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(("name", "message"), [("run", "no checkpoint in it"), ("nothing", "nothing there")])
def test_where_no_checkpoint_is_is_said(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(FastpetsError, match=message):
        checkpoints.find(tmp_path / name)


def test_a_state_of_another_model_or_of_other_images_is_refused(make_folder: Callable[..., Path]) -> None:
    learner = make_learner(make_folder(20), TrainingOptions())
    train, valid = fastpets.loaders(make_folder(20, name="again"), size=32, batch_size=8)
    other = Learner(train, valid, create_model("resnet34", 2, "none"))
    with pytest.raises(FastpetsError, match="a state of another model"):
        other.load_state_dict(learner.state_dict())
    with pytest.raises(FastpetsError, match="give the same source"):
        make_learner(make_folder(30, name="more"), TrainingOptions()).load_state_dict(learner.state_dict())


def test_there_is_no_pickle_in_it(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    file = checkpoints.save(tmp_path, 1, make_learner(make_folder(20), TrainingOptions()).state_dict())
    length = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + length])  # the format: a length, a header in JSON, plain numbers
    tree = json.loads(header.pop("__metadata__")["tree"])
    assert set(tree["dict"]) == {"train_step", "random", "train", "recorder", "progress", "history"}
    assert sum(end - start for start, end in (entry["data_offsets"] for entry in header.values())) == (
        file.stat().st_size - 8 - length
    )

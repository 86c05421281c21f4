"""Checkpoints: training resumes from them bit-exactly, and other files are rejected."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fastpets
from fastpets.errors import FastpetsError
from fastpets.models.classifier import create_model
from fastpets.training import checkpoints
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase
from tests.callbacks import Stopped, Stops
from tests.small_resnet import RESNET34, small_resnet

PHASES = [
    Phase(name="frozen", epochs=1, lr=1e-3, frozen_to=-1),
    Phase(name="unfrozen", epochs=2, lr=slice(1e-5, 1e-3), frozen_to=0),
]
NUM_STEPS = 3 * 2  # three epochs of two batches of eight images


def make_learner(folder: Path, options: TrainingOptions, seed: int = 0) -> Learner:
    train, valid = fastpets.loaders(folder, size=32, batch_size=8, cache="host", seed=seed)
    model = small_resnet(seed=seed)
    model.pretrained = True  # so that freezing has an effect
    return Learner(train, valid, model, options, print_epochs=False)


def outcome(learner: Learner) -> dict[str, Any]:
    """Final state, losses and results of a run, without its times."""
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


@pytest.mark.slow
def test_training_resumes_bit_exactly_after_any_step(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(20)
    options = TrainingOptions(ema=0.9, mix="both", clip_norm=1.0)
    whole = make_learner(folder, options)
    whole.fit(PHASES)
    expected = outcome(whole)
    for calls in range(1, NUM_STEPS + 3 + 1):  # each epoch validates on one batch
        stopped = make_learner(folder, options)
        stopped.callbacks = [Stops(at=calls)]
        with pytest.raises(Stopped):
            stopped.fit(PHASES)
        torch.manual_seed(calls)  # the caller's state does not matter
        file = checkpoints.save(tmp_path, calls, stopped.state_dict())
        resumed = make_learner(folder, options, seed=7)  # the state replaces its weights, order and random numbers
        resumed.load_state_dict(checkpoints.load(file))
        resumed.fit(PHASES, resume=True)
        assert_equal(outcome(resumed), expected)


def test_training_with_accumulated_gradients_resumes_bit_exactly(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(60)  # six batches an epoch: an optimizer step of four and one of two
    options = TrainingOptions(accumulate=4)
    whole, stopped, resumed = (make_learner(folder, options) for _ in range(3))
    whole.fit(PHASES)
    assert whole.train_step.optimizer.state_dict()["state"][0]["step"] == 2 * 2
    stopped.callbacks = [Stops(at=4)]
    with pytest.raises(Stopped):
        stopped.fit(PHASES)
    resumed.load_state_dict(checkpoints.load(checkpoints.save(tmp_path, 4, stopped.state_dict())))
    resumed.fit(PHASES, resume=True)
    assert_equal(outcome(resumed), outcome(whole))


def test_a_learner_without_pretrained_weights_resumes_bit_exactly(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """The state has what depends on the weights: that layers are frozen, and how images are normalised."""
    folder = make_folder(20)

    def make(pretrained: bool, **settings: Any) -> Learner:
        train, valid = fastpets.loaders(folder, size=32, batch_size=8, **settings)
        model = create_model("squeezenet1_1", 2, "none", seed=int(pretrained))
        model.pretrained = pretrained
        if pretrained:
            model.mean = model.std = (0.5, 0.5, 0.5)
        return Learner(train, valid, model, TrainingOptions(ema=0.9), print_epochs=False)

    whole, stopped, resumed = make(True), make(True), make(False)
    whole.fit(PHASES)
    stopped.callbacks = [Stops(at=1)]
    with pytest.raises(Stopped):
        stopped.fit(PHASES)
    saved = checkpoints.load(checkpoints.save(tmp_path, 1, stopped.state_dict()))
    resumed.load_state_dict(saved)
    assert resumed.pretrained
    assert resumed.train.preprocessing.mean == resumed.valid.preprocessing.mean == resumed.model.mean == (0.5,) * 3
    resumed.fit(PHASES, resume=True)
    assert_equal(outcome(resumed), outcome(whole))
    with pytest.raises(
        FastpetsError, match=r"^the loader normalises by mean \(0.1, 0.1, 0.1\) and .* trained with others"
    ):
        make(False, mean=(0.1,) * 3, std=(0.5,) * 3).load_state_dict(saved)


def test_the_last_two_checkpoints_are_kept_and_found(tmp_path: Path) -> None:
    for step in (9, 10, 200):
        checkpoints.save(tmp_path, step, {"step": step})
    names = ["checkpoint-00000010.pt", "checkpoint-00000200.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert checkpoints.load(checkpoints.find(tmp_path)) == {"step": 200}
    assert checkpoints.load(checkpoints.find(tmp_path / names[0])) == {"step": 10}


def test_a_state_of_nested_containers_is_restored_with_its_memory_formats(tmp_path: Path) -> None:
    images = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    tree = {
        "a": [1, 2.5, None, True, "text", float("inf"), (1, 2)],
        "b": {0: torch.arange(6).reshape(2, 3), 1: [torch.tensor(1.5), {"e": torch.zeros(0, dtype=torch.uint8)}]},
        "channels last": images,
        "twice": [torch.ones(2)] * 2,
    }
    state = checkpoints.load(checkpoints.save(tmp_path, 1, tree))
    assert_equal(state, tree)
    assert state["channels last"].stride() == images.stride()


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_file_is_rejected(tmp_path: Path, kept: int) -> None:
    file = checkpoints.save(tmp_path, 1, {"weights": torch.zeros(100)})
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        FastpetsError, match=r"^resume: \S+: not a complete checkpoint \(.+\); resume the one before it"
    ):
        checkpoints.load(file)


@pytest.mark.parametrize("contents", [{"weights": torch.zeros(3)}, [1, 2], torch.zeros(3)])
def test_another_file_of_torchs_is_rejected(tmp_path: Path, contents: Any) -> None:
    torch.save(contents, tmp_path / "model.pt")
    with pytest.raises(FastpetsError, match=r"not a fastpets checkpoint; expected a checkpoint-\*.pt of a run folder"):
        checkpoints.load(tmp_path / "model.pt")


def test_a_checkpoint_of_another_version_is_rejected(tmp_path: Path) -> None:
    torch.save({"format": checkpoints.FORMAT, "version": 77, "state": {}}, tmp_path / "checkpoint-1.pt")
    with pytest.raises(FastpetsError, match="version 77 of the format, expected 3"):
        checkpoints.load(tmp_path / "checkpoint-1.pt")


@pytest.mark.parametrize(("name", "message"), [("run", "no checkpoint in it"), ("nothing", "nothing there")])
def test_a_missing_checkpoint_is_reported(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(FastpetsError, match=rf"^resume: \S+: {message}"):
        checkpoints.find(tmp_path / name)


def test_a_state_of_another_model_or_another_data_set_is_rejected(make_folder: Callable[..., Path]) -> None:
    learner = make_learner(make_folder(20), TrainingOptions())
    train, valid = fastpets.loaders(make_folder(20, name="again"), size=32, batch_size=8)
    other = Learner(train, valid, small_resnet(blocks=RESNET34))
    with pytest.raises(FastpetsError, match="a state of another model"):
        other.load_state_dict(learner.state_dict())
    with pytest.raises(FastpetsError, match="load the same images"):
        make_learner(make_folder(30, name="more"), TrainingOptions()).load_state_dict(learner.state_dict())


class RunsCode:
    """An object whose unpickling would create a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_file_from_elsewhere_cannot_run_code(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint-1.pt"
    contents = {"format": checkpoints.FORMAT, "version": checkpoints.VERSION, "state": RunsCode(tmp_path / "made")}
    torch.save(contents, file)
    with pytest.raises(FastpetsError, match="not a complete checkpoint"):
        checkpoints.load(file)
    assert not (tmp_path / "made").exists()


def test_a_restored_state_shares_no_memory_with_its_source(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    one, other = (make_learner(folder, TrainingOptions(ema=0.9)) for _ in range(2))
    one.fit_one_cycle(1, 1e-3)
    other.load_state_dict(one.state_dict())
    before = copy.deepcopy(one.state_dict()["train_step"])
    other.fit_one_cycle(1, 1e-3)
    assert_equal(one.state_dict()["train_step"], before)

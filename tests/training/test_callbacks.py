"""Callbacks: which events they get, and what one that raises leaves behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastpets
from fastpets.errors import InvalidArgumentError
from fastpets.training.history import EpochResult
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions
from tests.small_resnet import small_resnet


class Steps:
    """Counts optimizer steps; raises at one of them."""

    def __init__(self, stop_at: int = 0) -> None:
        self.count, self.stop_at = 0, stop_at

    def on_step_end(self, learner: Learner) -> None:
        self.count += 1
        if self.count == self.stop_at:
            raise KeyboardInterrupt


class Epochs:
    def __init__(self) -> None:
        self.results: list[tuple[int, EpochResult]] = []

    def on_epoch_end(self, learner: Learner, result: EpochResult) -> None:
        assert result is learner.history[-1]
        self.results.append((len(learner.recorder.losses), result))


@pytest.fixture
def make_learner(make_folder: Callable[..., Path]) -> Callable[..., Learner]:
    train, valid = fastpets.loaders(make_folder(60), size=32, batch_size=8)

    def make(callbacks: Any, **options: Any) -> Learner:
        return Learner(train, valid, small_resnet(), TrainingOptions(**options), callbacks=callbacks)

    return make


def test_each_step_and_each_epoch_is_an_event_besides_the_printed_table(
    make_learner: Callable[..., Learner], capsys: pytest.CaptureFixture[str]
) -> None:
    steps, epochs = Steps(), Epochs()
    make_learner([steps, epochs], accumulate=4).fit_one_cycle(2, 1e-3)
    assert steps.count == 2 * 2  # of 6 batches, 4 and 2
    assert [(num_losses, result.epoch) for num_losses, result in epochs.results] == [(6, 0), (12, 1)]
    assert capsys.readouterr().out.count("error_rate") == 1


def test_a_callback_that_raises_interrupts_and_no_step_is_an_event_twice(make_learner: Callable[..., Learner]) -> None:
    steps = Steps(stop_at=4)
    learner = make_learner([steps])
    with pytest.raises(KeyboardInterrupt):
        learner.fit_one_cycle(1, 1e-3)
    phases = [fastpets.Phase(name="one cycle", epochs=1, lr=1e-3)]
    learner.fit(phases, resume=True)
    assert steps.count == len(learner.train) == len(learner.recorder.losses)


@pytest.mark.parametrize("callback", [print, object(), type("Typo", (), {"on_epoch_ends": print})()])
def test_an_object_that_would_never_be_called_is_refused(make_learner: Callable[..., Learner], callback: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^callbacks: .*, expected objects with a method on_epoch_end or"):
        make_learner([callback])

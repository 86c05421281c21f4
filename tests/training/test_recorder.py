"""The recorder: fastai's smoothed loss, and the error for a loss that is not finite."""

import numpy as np
import pytest
import torch

from fastpets.errors import FastpetsError
from fastpets.training.recorder import Recorder


def test_the_smoothed_loss_is_fastais() -> None:
    losses = np.random.default_rng(0).random(30)
    recorder, average = Recorder(), 0.0
    for number, loss in enumerate(losses.tolist(), start=1):
        recorder.add(torch.tensor(loss, dtype=torch.float64), 1e-3)
        recorder.wait()
        average = 0.98 * average + 0.02 * loss
        assert recorder.smoothed_loss() == pytest.approx(average / (1 - 0.98**number), rel=1e-12)
    assert recorder.losses == losses.tolist()
    assert recorder.smoothed[-1] == recorder.smoothed_loss()


def test_a_new_phase_restarts_the_average_and_keeps_the_losses() -> None:
    recorder = Recorder()
    recorder.add(torch.tensor(5.0), 1e-3)
    recorder.end_epoch()
    assert recorder.smoothed_loss() == pytest.approx(5)
    recorder.begin_phase()
    recorder.add(torch.tensor(1.0), 1e-3)
    recorder.end_epoch()
    assert recorder.smoothed_loss() == pytest.approx(1)
    assert recorder.losses == [5, 1]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_reported_with_its_batch_rate_and_images(loss: float) -> None:
    recorder = Recorder()
    recorder.add(torch.tensor(1.0), 1e-3, np.array([4, 1]))
    recorder.add(torch.tensor(loss), 3e-2, np.array([17, 5]))
    with pytest.raises(
        FastpetsError, match=rf"batch 2 is {loss}, at a learning rate of 3.00e-02 on the items 17 5 of train"
    ):
        recorder.wait()


def test_a_loss_that_is_not_finite_is_reported_two_batches_later_at_the_latest() -> None:
    recorder = Recorder()
    for loss in (float("nan"), 1.0):
        recorder.add(torch.tensor(loss), 1e-3)
    with pytest.raises(FastpetsError, match="batch 1 is nan"):
        recorder.add(torch.tensor(1.0), 1e-3)

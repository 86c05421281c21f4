"""A fastai Learner."""

from pathlib import Path

import pytest
import torch

from tests.clients.batch_recorder import BatchRecorder, MakeLoaders, check_passes, mean_loss

pytest.importorskip("fastai", reason="fastai is not installed; it comes with the extra clients")


def test_a_fit_has_each_batch_of_each_epoch_once(
    make_loaders: MakeLoaders, model: torch.nn.Module, tmp_path: Path
) -> None:
    from fastai.vision.all import DataLoaders, Learner

    train, valid = make_loaders()
    criterion = BatchRecorder(model)
    learner = Learner(DataLoaders(train, valid), model, loss_func=criterion, path=tmp_path)
    with learner.no_bar(), learner.no_logging():
        learner.fit(2, 1e-2)
    passes = criterion.passes()
    check_passes(passes, *make_loaders())
    criterion.check_learning()
    assert learner.recorder.values[-1][1] == pytest.approx(mean_loss(passes[-1]), rel=1e-4)

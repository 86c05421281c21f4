"""Callbacks that save a run after each epoch: first what training can resume from, then what people read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpets.errors import out_must_be_writable
from fastpets.runs.files import BAD_FILES, METRICS, STEPS
from fastpets.runs.folder import RunFolder, failure_is_a_warning
from fastpets.runs.predictor import save_model
from fastpets.runs.trackers import TrackerLog
from fastpets.training import checkpoints
from fastpets.training.history import EpochResult
from fastpets.training.lr_finder import RateCurve

if TYPE_CHECKING:
    from fastpets.training.learner import Learner


class ModelWriter:
    """Saves the model of architecture `arch` and a checkpoint. Raises InvalidArgumentError if that fails."""

    def __init__(self, run: RunFolder, arch: str) -> None:
        self.run, self.arch = run, arch

    def on_epoch_end(self, learner: Learner, result: EpochResult) -> None:
        """Saves both."""
        model, classes = learner.train_step.evaluated_model, learner.train.classes
        preprocessing = learner.valid.preprocessing
        with out_must_be_writable(self.run.path):
            save_model(self.run.path, model, arch=self.arch, classes=classes, preprocessing=preprocessing)
        save_checkpoint(self.run, learner)


class TableWriter:
    """Saves the tables and the learning rate finder's curve, and logs to trackers. What fails is a warning."""

    def __init__(self, run: RunFolder, trackers: TrackerLog) -> None:
        self.run, self.trackers = run, trackers
        self.saved_curve: RateCurve | None = None

    def on_epoch_end(self, learner: Learner, result: EpochResult) -> None:
        """Saves all of them."""
        path = self.run.path
        with failure_is_a_warning(path / METRICS):
            self.run.save_history(learner.history)
        with failure_is_a_warning(path / STEPS):
            self.run.save_steps(learner.recorder)
        with failure_is_a_warning(path / BAD_FILES):
            self.run.save_bad_files(learner.train.bad_files | learner.valid.bad_files)
        if learner.rate_curve is not None and learner.rate_curve is not self.saved_curve:
            with failure_is_a_warning(path / "lr_finder.png"):
                self.run.save_rate_curve(learner.rate_curve)
            self.saved_curve = learner.rate_curve
        self.trackers.log_epoch(result, learner.recorder)


def save_checkpoint(run: RunFolder, learner: Learner) -> None:
    """Saves the learner's whole state in the run folder. Raises InvalidArgumentError if that fails."""
    with out_must_be_writable(run.path):
        checkpoints.save(run.path, len(learner.recorder.losses), learner.state_dict())

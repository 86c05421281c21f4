"""Writes what a run folder of `fastpets train` has for a learner that was made in Python."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from fastpets.analysis.interpretation import Interpretation
from fastpets.analysis.report import write_report
from fastpets.errors import FastpetsError
from fastpets.models.classifier import Classifier
from fastpets.runs.files import CONFIG, read_about
from fastpets.runs.folder import RunFolder, now, resolved_by
from fastpets.runs.images import save_images
from fastpets.runs.predictor import save_model
from fastpets.training import distributed

if TYPE_CHECKING:
    from fastpets.training.learner import Learner


def export(learner: Learner, folder: Path, *, with_model: bool = True) -> None:
    """Writes the model, the tables, the list of images and report.html to a new folder: see Learner.export.

    Does nothing in other processes than the first.
    """
    if not distributed.is_first_process():
        return
    model = learner.train_step.evaluated_model
    if with_model and not (isinstance(model, Classifier) and model.arch):
        raise FastpetsError(
            f"the model, {type(model).__name__}, is not one of create_model, from whose name it could be loaded; keep "
            "its weights by learner.save"
        )
    may_replace = not with_model and folder.is_dir() and _holds_a_report(folder)
    with contextlib.closing(RunFolder(folder, resume=may_replace)) as run:
        if with_model:
            assert isinstance(model, Classifier)
            classes, preprocessing = learner.train.classes, learner.valid.preprocessing
            save_model(folder, model, arch=model.arch, classes=classes, preprocessing=preprocessing)
        options = {name: str(value) for name, value in vars(learner.options).items()}
        name = getattr(model, "arch", "") or type(model).__name__
        weights = model.weights if isinstance(model, Classifier) else ""
        about = {"arch": name, "weights": weights, "data": learner.train.dataset.root, "options": options}
        run.save_config({}, {"started": now(), **resolved_by(learner), **about})
        save_images(folder, learner.train.dataset, learner.valid.dataset)
        if learner.history:
            run.save_history(learner.history)
        if learner.recorder.losses:
            run.save_steps(learner.recorder)
        if learner.rate_curve is not None:
            run.save_rate_curve(learner.rate_curve)
        run.save_bad_files(learner.train.bad_files | learner.valid.bad_files)
        write_report(folder, Interpretation.from_learner(learner))


def _holds_a_report(folder: Path) -> bool:
    """Whether a folder holds what `report` wrote before, and not a run of `fastpets train`, which has settings."""
    return (folder / CONFIG).exists() and not read_about(folder / CONFIG)["settings"]

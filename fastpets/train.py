"""`fastpets train`: trains an image classifier and writes a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpets.errors import InvalidArgumentError, counted, first_few, one_line
from fastpets.flags import command_line, with_flags
from fastpets.runs.config import OF_ONE_RUN, TrainConfig, with_absolute_paths

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader
    from fastpets.runs.folder import RunFolder
    from fastpets.runs.trackers import TrackerLog
    from fastpets.training.history import EpochResult
    from fastpets.training.learner import Learner
    from fastpets.training.phases import Phase


def train(config: TrainConfig) -> int:
    """Trains a new run, or resumes one. Returns the exit status: 0, or 128 + N after a signal N."""
    from fastpets.training import distributed

    with distributed.only_first_process_prints():
        try:
            return _train_folds(config) if config.folds else _train(config)
        finally:
            distributed.stop()


def _train_folds(config: TrainConfig) -> int:
    from fastpets.runs import resuming
    from fastpets.runs.folds import cross_validate
    from fastpets.training import distributed

    config = with_absolute_paths(config)
    if config.resume is not None:
        if not config.resume.is_dir():
            raise InvalidArgumentError(f"resume: {config.resume}: nothing there, expected the folder of a run")
        resuming.check_settings(config)
    return cross_validate(config, _train, is_first_process=distributed.is_first_process())


def _train(config: TrainConfig) -> int:
    from fastpets.runs import resuming
    from fastpets.runs.build import build_learner, build_test_loader, set_up_process
    from fastpets.runs.files import read_resolved
    from fastpets.runs.images import check_images
    from fastpets.runs.saving import ModelWriter, TableWriter
    from fastpets.training import checkpoints, distributed

    config = with_absolute_paths(config)
    state, resolved, planned = None, dict[str, Any](), [config.epochs]
    if config.resume is not None:
        checkpoint = checkpoints.find(config.resume)
        resuming.check_settings(config)
        state, resolved = checkpoints.load(checkpoint), read_resolved(checkpoint.parent)
        planned = resuming.planned_epochs(config, resolved)
    if distributed.is_first_process():
        _check_outputs(config)
    # A resumed run does not need the pretrained weights, since a checkpoint has all weights.
    normalization = (tuple(resolved["mean"]), tuple(resolved["std"])) if "mean" in resolved else None
    learner = build_learner(config, set_up_process(config), normalization)
    test = build_test_loader(config, learner) if config.evaluate_test else None
    _print_images(learner, test)
    found_lr = resolved.get("lr")
    if state is not None:
        assert config.out is not None
        check_images(config.out, learner.train.dataset, learner.valid.dataset)
        learner.load_state_dict(state)
        learner.random.diverge(distributed.rank())
    elif config.lr == "auto" and config.schedule is None:
        found_lr = _suggested_rate(learner)
    phases = _phases(config, learner, found_lr, planned)
    if distributed.rank() != 0:
        return _run(learner, test, phases, config, None)
    with (
        contextlib.closing(open_run(config, learner, found_lr, planned)) as run,
        _trackers(config, learner, run) as trackers,
    ):
        hint, tables = _InputHint(len(learner.history)), TableWriter(run, trackers)
        learner.callbacks = [ModelWriter(run, config.arch), *learner.callbacks, hint, tables]
        return _run(learner, test, phases, config, run)


def _suggested_rate(learner: Learner) -> float:
    """Runs the learning rate finder, and prints what it suggests."""
    curve = learner.lr_find()
    print(f"the learning rate finder suggests {curve.valley:.2e}")
    if warning := curve.warning():
        print(with_flags(warning, TrainConfig))
    return curve.valley


def _phases(config: TrainConfig, learner: Learner, found_lr: float | None, planned: list[int]) -> list[Phase]:
    """The phases of training. Prints a hint if the run is resumed and has no epoch left."""
    from fastpets.runs import resuming

    with_lr = config if found_lr is None else dataclasses.replace(config, lr=repr(found_lr))
    phases = resuming.phases(with_lr, planned, learner.pretrained)
    if config.resume is not None and (hint := resuming.finished(config, phases, learner.progress)):
        print(with_flags(hint, TrainConfig))
    return phases


def _run(learner: Learner, test: Loader | None, phases: list[Phase], config: TrainConfig, run: RunFolder | None) -> int:
    """Trains, evaluates on `test`, then completes the run folder. `run` is None in all processes but the first."""
    from fastpets.runs.files import BAD_FILES
    from fastpets.runs.folder import failure_is_a_warning

    status = _fit(learner, phases, run, resume=config.resume is not None)
    bad_files = _bad_files_of_all_processes(learner)
    num_bad = len(bad_files)
    if run is not None:
        with failure_is_a_warning(run.path / BAD_FILES):
            num_bad = run.save_bad_files(bad_files)
    if status == 0 and learner.history:
        _print_summary(learner, config, run)
        if test is not None:
            _evaluate_test(learner, test, run)
        if run is not None:
            _write_report(learner, config, run)
    if run is not None and num_bad:
        print(f"{counted(num_bad, 'image')} could not be used, listed in {run.path / BAD_FILES}")
    if run is not None and learner.history:
        print(f"model and metrics: {run.path}")
    return status


def _check_outputs(config: TrainConfig) -> None:
    """Raises FastpetsError if the run folder or a tracker cannot be used, before anything that takes long."""
    from fastpets.runs.folder import DEFAULT_FOLDER, check_new, check_writable
    from fastpets.runs.trackers import check_installed

    if config.out is not None and config.resume is None:
        check_new(config.out)
    else:
        check_writable(config.out or DEFAULT_FOLDER)
    check_installed(config.track)


def open_run(config: TrainConfig, learner: Learner, found_lr: float | None, planned: list[int]) -> RunFolder:
    """The run folder, with its config.json and images.parquet.

    A resumed run keeps its start time and the learning rate found for it. `planned` is as in runs/resuming.py.
    """
    from fastpets.runs.files import read_resolved
    from fastpets.runs.folder import RunFolder, new_folder, now, resolved_by
    from fastpets.runs.images import save_images

    run = RunFolder(config.out or new_folder(config.arch), resume=config.resume is not None)
    config = dataclasses.replace(config, out=run.path)
    resolved: dict[str, Any] = {
        "started": now(),
        **({} if found_lr is None else {"lr": found_lr}),
        **read_resolved(run.path),
        **resolved_by(learner),
        "epochs": planned,
    }
    run.save_config(dataclasses.asdict(config), resolved)
    if config.resume is None:
        save_images(run.path, learner.train.dataset, learner.valid.dataset)
    return run


@contextlib.contextmanager
def _trackers(config: TrainConfig, learner: Learner, run: RunFolder) -> Iterator[TrackerLog]:
    """The trackers of a run, which has the same id if it is resumed: the time of its start."""
    from fastpets.runs.files import read_resolved
    from fastpets.runs.trackers import TrackerLog

    run_id = re.sub(r"\D", "", read_resolved(run.path)["started"])
    settings = dataclasses.asdict(dataclasses.replace(config, out=run.path))
    num_logged = learner.history[-1].batches if learner.history else 0
    with contextlib.closing(TrackerLog(config.track, run.path, run_id, settings, num_logged)) as trackers:
        yield trackers


class _InputHint:
    """A callback that prints once how to load faster, if training waits for images."""

    def __init__(self, num_resumed: int) -> None:
        self.num_resumed, self.is_printed = num_resumed, False

    def on_epoch_end(self, learner: Learner, result: EpochResult) -> None:
        """Prints the hint, if there is one."""
        from fastpets.runs import hints

        num_epochs = len(learner.history) - self.num_resumed
        hint = hints.input_bound(result.input_share, num_epochs, learner.train.cache is not None)
        if hint and not self.is_printed:
            print(f"       {with_flags(hint, TrainConfig)}")
            self.is_printed = True


def _fit(learner: Learner, phases: list[Phase], run: RunFolder | None, *, resume: bool) -> int:
    """Trains, and saves a checkpoint if a signal interrupts training. Returns the exit status."""
    from fastpets.runs.saving import save_checkpoint
    from fastpets.training.interruption import Interrupted, Interruption

    if not learner.pretrained and not resume:
        print("no pretrained weights: training all layers from the start")
    try:
        with Interruption() as interruption:
            learner.callbacks.append(interruption)
            try:
                learner.fit(phases, resume=resume)
            finally:
                learner.callbacks.remove(interruption)
    except Interrupted as interrupted:
        if run is not None:
            save_checkpoint(run, learner)
            path = shlex.quote(str(run.path))
            print(f"\nstopped after {counted(len(learner.history), 'complete epoch')}; resume with --resume {path}")
        return 128 + interrupted.number
    return 0


def _bad_files_of_all_processes(learner: Learner) -> dict[str, str]:
    """What is wrong with each bad file that a loader of any process has met, by its path."""
    from fastpets.training import distributed

    found = distributed.gather(learner.train.bad_files | learner.valid.bad_files)
    return {path: problem for problems in found for path, problem in problems.items()}


def _print_images(learner: Learner, test: Loader | None) -> None:
    """Prints the numbers of images and classes, the files in the folder that are not images, and the cache."""
    dataset = learner.train.dataset
    num_train, num_valid = (loader.headers.usable.sum() for loader in (learner.train, learner.valid))
    images = f"{counted(num_train, 'training image')}, {counted(num_valid, 'validation image')}"
    print(f"{images}, {counted(len(dataset.classes), 'class')}")
    if dataset.ignored_files:
        names = one_line(first_few([Path(path).name for path in dataset.ignored_files]))
        print(f"ignored {counted(len(dataset.ignored_files), 'file')} without an image's suffix: {names}")
    if test is not None:
        print(f"{counted(test.headers.usable.sum(), 'test image')}, for the evaluation after training")
    if learner.train.cache_reason != "none":
        print(f"cache: {learner.train.cache_reason}")


def _print_summary(learner: Learner, config: TrainConfig, run: RunFolder | None) -> None:
    """Prints the lowest recalls, the error rate with test-time augmentation, and a hint for the next run."""
    from fastpets.runs import hints
    from fastpets.runs.files import TTA_METRICS
    from fastpets.runs.folder import failure_is_a_warning
    from fastpets.training.tta import tta

    if lowest := lowest_recalls(learner):
        print(f"lowest recall: {one_line(', '.join(lowest))}")
    if config.tta:
        probabilities, labels = tta(learner, config.tta)
        error_rate = (probabilities.argmax(1) != labels).float().mean().item()
        print(f"error rate with test-time augmentation ({config.tta}): {error_rate:.6f}")
        if run is not None:
            with failure_is_a_warning(run.path / TTA_METRICS):
                run.save_tta(config.tta, error_rate)
    if hint := hints.best_epoch(learner.history, int(learner.valid.headers.usable.sum())):
        print(with_flags(hint, TrainConfig))


def lowest_recalls(learner: Learner) -> list[str]:
    """The five classes with the lowest recall in the last epoch, with their numbers of validation images."""
    valid = learner.valid.dataset
    labels = valid.labels[learner.valid.headers.usable].tolist()
    num_images = Counter(valid.classes[label] for label in labels)
    metrics = learner.history[-1].metrics
    found = sorted((metrics[f"recall/{name}"], name) for name in num_images if f"recall/{name}" in metrics)
    return [f"{name} {value:.3f} of {num_images[name]}" for value, name in found if not math.isnan(value)][:5]


def _evaluate_test(learner: Learner, test: Loader, run: RunFolder | None) -> None:
    """Prints the loss and the metrics of the test images, and saves them in the run folder."""
    from fastpets.runs.files import TEST_METRICS
    from fastpets.runs.folder import failure_is_a_warning

    values = learner.validate(test)
    values = {"test_loss": values.pop("valid_loss"), **values}
    shown = ", ".join(f"{name} {value:.6f}" for name, value in values.items() if "/" not in name)  # not of each class
    print(f"test images: {shown}")
    if run is not None:
        with failure_is_a_warning(run.path / TEST_METRICS):
            run.save_test(values)


def _write_report(learner: Learner, config: TrainConfig, run: RunFolder) -> None:
    from fastpets.analysis.interpretation import Interpretation
    from fastpets.analysis.report import write_report
    from fastpets.runs.files import PREDICTIONS, REPORT
    from fastpets.runs.folder import failure_is_a_warning
    from fastpets.runs.predictions import save_predictions

    interpretation = Interpretation.from_learner(learner)
    with failure_is_a_warning(run.path / REPORT):
        print(f"report: {write_report(run.path, interpretation, command_line('train', config, OF_ONE_RUN))}")
    if config.k_fold is not None:
        with failure_is_a_warning(run.path / PREDICTIONS):
            validated = interpretation.loader.dataset.select(interpretation.ids)
            save_predictions(run.path, validated, interpretation.probabilities)


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))

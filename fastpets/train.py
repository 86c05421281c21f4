"""`fastpets train`: trains an image classifier and writes a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpets.errors import InvalidArgumentError
from fastpets.runs.config import TrainConfig, read_config

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader
    from fastpets.runs.folder import RunFolder
    from fastpets.training.history import EpochResult
    from fastpets.training.learner import Learner
    from fastpets.training.phases import Phase

CAN_CHANGE = ("device", "num_workers", "resume")  # settings that may differ when a run is resumed


def train(config: TrainConfig) -> int:
    """Trains a new run, or resumes one. Returns the exit status: 0, or 128 + N after a signal N."""
    from fastpets.training import distributed

    with _only_first_process_prints():
        try:
            return _train(config)
        finally:
            distributed.stop()


def _train(config: TrainConfig) -> int:
    from fastpets.runs.build import build_learner, find_lr, set_up_process
    from fastpets.training import checkpoints, distributed

    checkpoint = None if config.resume is None else checkpoints.find(config.resume)
    state = None
    if checkpoint is not None:
        config, state = resumed_config(config, checkpoint.parent), checkpoints.load(checkpoint)
    learner = build_learner(config, set_up_process(config))
    _print_data_set(learner.train, learner.valid)
    if state is not None:
        learner.load_state_dict(state)
        learner.random.diverge(distributed.rank())
    elif config.lr == "auto" and config.schedule is None:
        lr = find_lr(learner)
        print(f"the learning rate finder suggests {lr:.2e}")
        config = dataclasses.replace(config, lr=repr(lr))
    run = open_run(config, learner, resume=state is not None)
    learner.on_epoch_end = _epoch_callback(config, learner, run) if run is not None else lambda result: None
    status = _fit(learner, config.phases(learner.model.pretrained), run, resume=state is not None)
    if status == 0 and learner.history:
        _print_conclusions(learner, config)
        if run is not None:
            _write_report(learner, config, run)
    if run is not None:
        _print_results(learner, run)
    return status


@contextlib.contextmanager
def _only_first_process_prints() -> Iterator[None]:
    """Under torchrun, discards what all processes but the first print, and their warnings."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def resumed_config(config: TrainConfig, run: Path) -> TrainConfig:
    """The settings of the run in a folder, with the device and the number of threads of `config` if it has any.

    Raises InvalidArgumentError if another setting of `config` differs from both its default and the run's.
    """
    stored, defaults = read_config(run, out=run, resume=config.resume), TrainConfig()
    for field in dataclasses.fields(TrainConfig):
        given, default = getattr(config, field.name), getattr(defaults, field.name)
        if field.name not in CAN_CHANGE and given not in (default, getattr(stored, field.name)):
            raise InvalidArgumentError(
                f"{field.name}: {given}, but the run that is resumed has {getattr(stored, field.name)}; leave it out"
            )
    device = stored.device if config.device == defaults.device else config.device
    # The same number of threads as before gives the same sums on a CPU.
    return dataclasses.replace(stored, device=device, num_workers=config.num_workers or stored.num_workers)


def open_run(config: TrainConfig, learner: Learner, *, resume: bool) -> RunFolder | None:
    """The run folder, with its config.json; None in all processes but the first."""
    from fastpets.runs.folder import RunFolder
    from fastpets.training import distributed

    if distributed.rank() > 0:
        return None
    name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{config.arch.replace('/', '-')}"
    run = RunFolder(config.out or Path("runs", name), resume=resume)
    resolved: dict[str, Any] = {
        "device": learner.device,
        "num_workers": learner.train.num_workers,
        "amp_dtype": learner.train_step.amp_dtype,
        "num_processes": distributed.world_size(),
    }
    run.save_config(dataclasses.asdict(config), resolved)
    return run


def _epoch_callback(config: TrainConfig, learner: Learner, run: RunFolder) -> Callable[[EpochResult], None]:
    """A function that prints an epoch's results, then saves them, the model and a checkpoint in the run folder."""
    from fastpets.__main__ import with_flags
    from fastpets.runs import hints
    from fastpets.runs.saved_model import save_model
    from fastpets.runs.trackers import TensorBoard
    from fastpets.training.history import EpochPrinter

    num_logged = learner.history[-1].batches if learner.history else 0
    tensorboard = TensorBoard(run.path, num_logged) if config.tensorboard else None
    # The saved model predicts without autocast.
    preprocessing = dataclasses.replace(learner.valid.preprocessing, dtype="float32")
    print_epoch, hinted = EpochPrinter(), False

    def on_epoch_end(result: EpochResult) -> None:
        nonlocal hinted
        print_epoch(result)
        hint = hints.input_bound(result.input_share, len(learner.history), learner.train.cache is not None)
        if hint and not hinted:
            print(f"       {with_flags(hint, TrainConfig)}")
            hinted = True
        if tensorboard is not None:
            tensorboard(result, learner.recorder)
        run.save_history(learner.history)
        run.save_steps(learner.recorder)
        if learner.rate_curve is not None:
            run.save_rate_curve(learner.rate_curve)
        model, classes = learner.train_step.evaluated_model, learner.train.classes
        save_model(run.path, model, arch=config.arch, classes=classes, preprocessing=preprocessing)
        _save_checkpoint(learner, run)

    return on_epoch_end


def _fit(learner: Learner, phases: list[Phase], run: RunFolder | None, *, resume: bool) -> int:
    """Trains, with a checkpoint if a signal interrupts it. Returns the exit status."""
    from fastpets.training.interruption import Interrupted, Interruption

    if not learner.model.pretrained:
        print("no pretrained weights: training all layers from the start")
    try:
        with Interruption() as interruption:
            learner.on_step_end = interruption.check
            learner.fit(phases, resume=resume)
    except Interrupted as interrupted:
        if run is not None:
            _save_checkpoint(learner, run)
            print(f"\nstopped after {len(learner.history)} complete epochs; resume with --resume {run.path}")
        return 128 + interrupted.number
    finally:
        learner.on_step_end = lambda: None
    return 0


def _save_checkpoint(learner: Learner, run: RunFolder) -> None:
    from fastpets.training import checkpoints

    checkpoints.save(run.path, len(learner.recorder.losses), learner.state_dict())


def _print_data_set(train_loader: Loader, valid_loader: Loader) -> None:
    """Prints the number of images and classes, and the files that are no images."""
    dataset = train_loader.dataset
    num_train, num_valid = (int(loader.headers.usable.sum()) for loader in (train_loader, valid_loader))
    print(f"{num_train} training images, {num_valid} validation images, {len(dataset.classes)} classes")
    if dataset.ignored_files:
        names = [Path(path).name for path in dataset.ignored_files[:5]] + ["..."] * (len(dataset.ignored_files) > 5)
        print(f"ignored {len(dataset.ignored_files)} files without an image's suffix: {', '.join(names)}")


def _print_conclusions(learner: Learner, config: TrainConfig) -> None:
    """Prints the lowest recalls, the error rate with test-time augmentation, and a hint."""
    from fastpets.__main__ import with_flags
    from fastpets.runs import hints
    from fastpets.training.tta import tta

    recalls = sorted((value, name) for name, value in learner.history[-1].metrics.items() if name.startswith("recall/"))
    if recalls:
        print("lowest recall:", ", ".join(f"{name.partition('/')[2]} {value:.3f}" for value, name in recalls[:5]))
    if config.tta:
        probabilities, labels = tta(learner, config.tta)
        error_rate = (probabilities.argmax(1) != labels).float().mean().item()
        print(f"error rate with test-time augmentation ({config.tta}): {error_rate:.6f}")
    if hint := hints.best_epoch(learner.history, int(learner.valid.headers.usable.sum())):
        print(with_flags(hint, TrainConfig))


def _write_report(learner: Learner, config: TrainConfig, run: RunFolder) -> None:
    from fastpets.__main__ import command_line
    from fastpets.analysis.interpretation import Interpretation
    from fastpets.analysis.report import write_report

    command = command_line("train", config, leave_out=("out", "resume"))
    print(f"report: {write_report(run.path, Interpretation.from_learner(learner), command)}")


def _print_results(learner: Learner, run: RunFolder) -> None:
    """Saves the list of bad files, if there are any, and prints where everything is."""
    if bad_files := learner.train.bad_files | learner.valid.bad_files:
        run.save_bad_files(bad_files)
        print(f"{len(bad_files)} images could not be used; they are listed in {run.path / 'bad_files.csv'}")
    if learner.history:
        print(f"model and metrics: {run.path}")


if __name__ == "__main__":
    from fastpets.__main__ import main

    sys.exit(main(["train", *sys.argv[1:]]))

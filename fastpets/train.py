"""`python -m fastpets.train`: from a folder of images to a trained classifier, in one command."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpets.command import run_command
from fastpets.errors import FastpetsError
from fastpets.runs.config import TrainConfig, read_config
from fastpets.training.history import print_epoch

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader
    from fastpets.runs.folder import RunFolder
    from fastpets.training.history import EpochResult
    from fastpets.training.learner import Learner


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0 when trained, 1 if it cannot be done (one line says why), 130 after Ctrl-C, 143 after
    SIGTERM."""
    return run_command("train", TrainConfig, with_messages, arguments)


def with_messages(config: TrainConfig) -> int:
    """The run, whose warnings are a line each; of several processes, the first alone speaks."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; what went wrong, we say
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        if os.environ.get("RANK", "0") != "0":
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            warnings.simplefilter("ignore")
        return train(config)


def train(config: TrainConfig) -> int:
    """The whole run: data, model, run folder, all phases of training. Returns the exit status."""
    from fastpets.runs.build import build_phases, make_learner, with_rate_found
    from fastpets.training import checkpoints, distributed

    state = None
    if config.resume is not None:
        state, config = resumed(config, checkpoints.find(config.resume))
    try:
        learner = make_learner(config)
        _describe(learner.train, learner.valid)
        if state is None:
            config = with_rate_found(config, learner)
        else:
            learner.load_state_dict(state)
            learner.random.diverge(distributed.rank())
        phases = build_phases(config, learner.model.pretrained)
        run = open_run(config, learner, goes_on=state is not None)
        status = _fit(learner, lambda: learner.fit(phases, resume=state is not None), run)
        if status == 0 and learner.history:
            _conclude(learner, config)
        if run is not None:
            if status == 0 and learner.history:
                _report(learner, config, run)
            _say_what_is_left(learner, run)
        return status
    finally:
        distributed.stop()


def resumed(config: TrainConfig, file: Path) -> tuple[dict[str, Any], TrainConfig]:
    """A checkpoint's state and its run's settings. Raises FastpetsError for flags beside --resume that differ."""
    from fastpets.training import checkpoints

    folder = file.parent
    stored = read_config(folder, out=folder, resume=config.resume)
    free = ("device", "threads", "resume")  # what may be another this time
    defaults = TrainConfig()
    for field in dataclasses.fields(TrainConfig):
        given, default = getattr(config, field.name), getattr(defaults, field.name)
        if field.name not in free and given not in (default, getattr(stored, field.name)):
            flag = f"--{field.name.replace('_', '-')}"
            raise FastpetsError(f"{flag} {given}: the run has {getattr(stored, field.name)}, and goes on with it")
    device = stored.device if config.device == defaults.device else config.device
    threads = config.threads or stored.threads  # of which there must be as many for the very same sums on a CPU
    return checkpoints.load(file), dataclasses.replace(stored, device=device, threads=threads)


def open_run(config: TrainConfig, learner: Learner, *, goes_on: bool) -> RunFolder | None:
    """The run's folder, in which each epoch leaves its numbers and its model; None in all processes but the first."""
    from fastpets.runs.build import num_threads
    from fastpets.runs.folder import RunFolder
    from fastpets.training import distributed

    if distributed.rank() > 0:
        learner.on_epoch_end = lambda result: None
        return None
    name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{config.arch.replace('/', '-')}"
    run = RunFolder(config.out or Path("runs", name), goes_on=goes_on)
    resolved = {"device": learner.device, "threads": num_threads(config), "amp_dtype": learner.train_step.amp_dtype}
    run.save_config(dataclasses.asdict(config), resolved | {"processes": distributed.world_size()})
    learner.on_epoch_end = keeper(learner, config, run)
    return run


def keeper(learner: Learner, config: TrainConfig, run: RunFolder) -> Callable[[EpochResult], None]:
    """What happens at the end of each epoch: a printed line, and all that the run folder keeps, as it is now."""
    from fastpets.runs import hints
    from fastpets.training import checkpoints

    description = model_description(config, learner.train)
    log, advised = None, False
    if config.tensorboard:
        from fastpets.runs.trackers import TensorBoard

        log = TensorBoard(run.path, learner.history[-1].batches if learner.history else 0)

    def on_epoch_end(result: EpochResult) -> None:
        nonlocal advised
        print_epoch(result)
        done, cached = len(learner.history), learner.train.cache is not None
        if not advised and (line := hints.input_waits(result.input_share, done, cached)):
            print(f"       {line}")
            advised = True
        if log is not None:
            log(result, learner.recorder)
        run.save_history(learner.history)
        run.save_steps(learner.recorder)
        if learner.rate_curve is not None:
            run.save_rate_curve(learner.rate_curve)
        run.save_model(learner.train_step.evaluated_model, description)
        checkpoints.save(run.path, len(learner.recorder.losses), learner.state_dict())

    return on_epoch_end


def model_description(config: TrainConfig, loader: Loader) -> dict[str, Any]:
    """All that a prediction needs beside the weights."""
    return {
        "arch": config.arch,
        "classes": list(loader.classes),
        "size": config.final_size,
        "presize": config.presize,
        "presize_method": config.presize_method,
        "borders": config.borders,
        "supersample": config.supersample,
        "mean": list(loader.preprocessing.mean),
        "std": list(loader.preprocessing.std),
    }


def _describe(train_loader: Loader, valid_loader: Loader) -> None:
    """Says what was found before it is trained on."""
    dataset, counts = (
        train_loader.dataset,
        [int(loader.headers.usable.sum()) for loader in (train_loader, valid_loader)],
    )
    print(f"{counts[0]} images to train on, {counts[1]} to validate, {len(dataset.classes)} classes")
    if dataset.left_out:
        names = [Path(path).name for path in dataset.left_out[:5]] + ["..."] * (len(dataset.left_out) > 5)
        print(f"no images by their names, left out ({len(dataset.left_out)}): {', '.join(names)}")


def _fit(learner: Learner, fit: Callable[[], None], run: RunFolder | None) -> int:
    """Trains, and keeps a checkpoint if it is asked to stop."""
    from fastpets.training import checkpoints
    from fastpets.training.interruption import Interrupted, Interruption

    if not learner.model.pretrained:
        print("no pretrained weights: all layers train from the start")
    try:
        with Interruption() as interruption:
            learner.on_step_end = interruption.check
            fit()
    except Interrupted as interrupted:
        if run is not None:
            checkpoints.save(run.path, len(learner.recorder.losses), learner.state_dict())
            print(f"\nstopped after {len(learner.history)} whole epochs; --resume {run.path} goes on from here")
        return 128 + interrupted.number
    finally:
        learner.on_step_end = lambda: None
    return 0


def _conclude(learner: Learner, config: TrainConfig) -> None:
    """What is said of the numbers when all phases are over."""
    from fastpets.runs import hints
    from fastpets.training.tta import tta

    recalls = sorted((value, name) for name, value in learner.history[-1].metrics.items() if name.startswith("recall/"))
    if recalls:
        print("lowest recall:", ", ".join(f"{name.partition('/')[2]} {value:.3f}" for value, name in recalls[:5]))
    if config.tta:
        probabilities, labels = tta(learner, config.tta)
        error_rate = (probabilities.argmax(1) != labels).float().mean().item()
        print(f"error rate with test-time augmentation ({config.tta}): {error_rate:.6f}")
    if line := hints.best_epoch(learner.history, int(learner.valid.headers.usable.sum())):
        print(line)


def _say_what_is_left(learner: Learner, run: RunFolder) -> None:
    """Where to find what the run leaves."""
    if bad_files := learner.train.bad_files | learner.valid.bad_files:
        run.save_bad_files(bad_files)
        print(f"{len(bad_files)} images could not be used; {run.path / 'bad_files.csv'} lists them")
    if learner.history:
        print(f"the model and its numbers are in {run.path}")


def _report(learner: Learner, config: TrainConfig, run: RunFolder) -> None:
    """The page that shows the run."""
    from fastpets.analysis.interpretation import Interpretation
    from fastpets.analysis.report import write_report

    interpretation = Interpretation.from_learner(learner)
    path = write_report(run.path, interpretation, {f.name: getattr(config, f.name) for f in dataclasses.fields(config)})
    print(f"{path} shows it")


if __name__ == "__main__":
    sys.exit(main())

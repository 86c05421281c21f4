"""`python -m fastpets.train`: from a folder of pictures to a trained classifier, in one command."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from fastpets.config import TrainConfig
from fastpets.console import EpochTable
from fastpets.errors import FastpetsError

if TYPE_CHECKING:
    from fastpets.learner import EpochResult, Learner
    from fastpets.loader import Loader
    from fastpets.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0 when trained, 1 if it cannot be done (one line says why), 130 after Ctrl-C."""
    try:
        config = tyro.cli(TrainConfig, args=arguments, prog="python -m fastpets.train")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; what went wrong, we say
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
            return train(config)
    except FastpetsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped before training began", file=sys.stderr)
        return 130


def train(config: TrainConfig) -> int:
    """The whole run: data, model, run folder, both phases of training. Returns the exit status."""
    from fastpets.run_folder import RunFolder
    from fastpets.wiring import make_learner, num_threads

    learner = make_learner(config)
    _describe(learner.train, learner.valid)
    run = RunFolder(config.out or Path("runs", f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{config.arch.replace('/', '-')}"))
    resolved = {"device": learner.device, "threads": num_threads(config), "amp_dtype": learner.amp_dtype}
    run.save_config({**dataclasses.asdict(config), **resolved})
    learner.on_epoch_end = _keeper(learner, run, model_description(config, learner.train))
    status = _fit(learner, config, run)
    if bad_files := learner.train.bad_files | learner.valid.bad_files:
        run.save_bad_files(bad_files)
        print(f"{len(bad_files)} pictures could not be used; {run.path / 'bad_files.csv'} lists them")
    return status


def model_description(config: TrainConfig, loader: Loader) -> dict[str, Any]:
    """All that a prediction needs beside the weights."""
    return {
        "arch": config.arch,
        "classes": list(loader.classes),
        "size": config.size,
        "presize": config.presize,
        "presize_method": config.presize_method,
        "borders": config.borders,
        "supersample": config.supersample,
        "mean": list(loader.mean),
        "std": list(loader.std),
    }


def _describe(train_loader: Loader, valid_loader: Loader) -> None:
    """Says what was found before it is trained on."""
    items, counts = train_loader.items, [int(loader.usable.sum()) for loader in (train_loader, valid_loader)]
    print(f"{counts[0]} pictures to train on, {counts[1]} to validate, {len(items.classes)} classes")
    if items.left_out:
        names = [Path(path).name for path in items.left_out[:5]] + ["..."] * (len(items.left_out) > 5)
        print(f"no pictures by their names, left out ({len(items.left_out)}): {', '.join(names)}")


def _keeper(learner: Learner, run: RunFolder, description: dict[str, Any]) -> Any:
    """What happens at the end of each epoch: a printed line, a row in metrics.csv, and the model as it is now."""
    table = EpochTable()

    def on_epoch_end(result: EpochResult) -> None:
        table(result)
        run.add_result(result)
        run.save_model(learner.model, description)

    return on_epoch_end


def _fit(learner: Learner, config: TrainConfig, run: RunFolder) -> int:
    try:
        if learner.model.pretrained:
            learner.fine_tune(config.epochs, config.lr, config.freeze_epochs)
        else:
            print("no pretrained weights: all layers train from the start, at one rate")
            learner.fit_one_cycle(config.epochs, config.lr)
    except KeyboardInterrupt:
        kept = f"{run.path} keeps the model of the last one" if learner.history else "there is no model yet"
        print(f"\nstopped after {len(learner.history)} whole epochs; {kept}")
        return 130
    print(f"the model and its numbers are in {run.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Cross-validation: a run for each fold, in the folders fold-0, fold-1 and so on of a run folder, and their summary."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from fastpets.errors import FastpetsError, counted, out_must_be_writable
from fastpets.runs.config import TrainConfig
from fastpets.runs.files import FOLDS, METRICS, PREDICTIONS, read_resolved, read_rows
from fastpets.runs.folder import RunFolder, failure_is_a_warning, new_folder, now
from fastpets.runs.images import same_images
from fastpets.runs.predictions import join_predictions
from fastpets.training import checkpoints


def cross_validate(config: TrainConfig, train: Callable[[TrainConfig], int], *, is_first_process: bool) -> int:
    """Calls `train` with the settings of each fold's run, until one returns a status other than 0; returns the status.

    Only the first process writes and prints. With `config.resume`, folds in folds.csv are not trained again, and the
    one that was interrupted is resumed.
    """
    done: list[dict[str, Any]] = [*read_rows(config.resume / FOLDS)] if config.resume is not None else []
    if not is_first_process:  # the other processes train the same folds
        folder = config.out or Path("unused")
        runs = _fold_configs(config, folder)[len(done) :]
        return next((status for run in runs if (status := train(run))), 0)
    with closing(RunFolder(config.out or new_folder(config.arch), resume=config.resume is not None)) as run:
        config = dataclasses.replace(config, out=run.path)
        run.save_config(dataclasses.asdict(config), {"started": now(), **read_resolved(run.path)})
        configs = _fold_configs(config, run.path)
        for number, fold_config in enumerate(configs[len(done) :], start=len(done)):
            assert fold_config.out is not None
            print(f"fold {number} of {config.folds}", flush=True)
            if status := train(fold_config):
                print(f"fold {number} is not complete; resume {run.path} to continue with all folds")
                return status
            if not same_images(fold_folder(run.path, 0), fold_config.out):
                raise FastpetsError(
                    f"{fold_config.out}: other images than those of fold 0, so that the folds overlap; restore them, "
                    "or start a new cross-validation"
                )
            if not (rows := read_rows(fold_config.out / METRICS)):
                raise FastpetsError(f"{fold_config.out}: no metrics.csv, from which the summary is made")
            done.append({"fold": number, **rows[-1]})
            with out_must_be_writable(run.path):
                run.save_folds(done)
        with failure_is_a_warning(run.path / PREDICTIONS):
            folders = [fold_config.out for fold_config in configs if fold_config.out is not None]
            num_images = join_predictions(run.path, folders)
            print(f"predictions for {counted(num_images, 'image')}, each by a model that was not trained on it: "
                  f"{run.path / PREDICTIONS}")  # fmt: skip
        print(summary(done))
    return 0


def summary(rows: list[dict[str, Any]]) -> str:
    """A table of the folds' validation losses and error rates, with their mean and standard deviation."""
    names = ("valid_loss", "error_rate")
    lines = [f"{'fold':<10}" + "".join(f"{name:>12}" for name in names)]
    lines += [f"{row['fold']:<10}" + "".join(f"{float(row[name]):>12.6f}" for name in names) for row in rows]
    columns = {name: [float(row[name]) for row in rows] for name in names}
    for title, of in (("mean", statistics.mean), ("std. dev.", statistics.stdev)):
        lines.append(f"{title:<10}" + "".join(f"{of(columns[name]):>12.6f}" for name in names))
    rates = columns["error_rate"]
    lines.append(
        f"error rate of {len(rows)} folds: mean {statistics.mean(rates):.4f}, standard deviation "
        f"{statistics.stdev(rates):.4f}, from {min(rates):.4f} to {max(rates):.4f}"
    )
    return "\n".join(lines)


def fold_folder(run_folder: Path, number: int) -> Path:
    """The run folder of a fold."""
    return run_folder / f"fold-{number}"


def _fold_configs(config: TrainConfig, folder: Path) -> list[TrainConfig]:
    """The settings of each fold's run, which is resumed if it has a checkpoint."""
    configs = []
    for number in range(config.folds):
        path = fold_folder(folder, number)
        is_started = config.resume is not None and path.is_dir() and bool(checkpoints.list_checkpoints(path))
        changes: dict[str, Any] = {"folds": 0, "k_fold": (number, config.folds), "out": path}
        configs.append(dataclasses.replace(config, **changes, resume=path if is_started else None))
    return configs

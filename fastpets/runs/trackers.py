"""Experiment trackers: TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastpets.errors import FastpetsError, one_line
from fastpets.runs.folder import failure_is_a_warning
from fastpets.training.history import EpochResult
from fastpets.training.recorder import Recorder

PROJECT = "fastpets"  # of Weights & Biases, and MLflow's experiment, unless the environment names another one
PER_REQUEST = 1000  # MLflow's limit of metrics, and its servers' of 100 parameters
PARAMETERS_PER_REQUEST = 100

Scalars = dict[str, float]


class Tracker(Protocol):
    """Logs scalars by the number of training batches. Made with the run folder, the run's id and its settings."""

    def log(self, rows: Sequence[tuple[int, Scalars]]) -> None:
        """Logs scalars, in the order of their batches."""

    def close(self) -> None:
        """Ends the log."""


class TensorBoard:
    """Logs to the subfolder `tensorboard` of the run folder, whose path has to be UTF-8."""

    def __init__(self, run_folder: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            self.writer = SummaryWriter(run_folder / "tensorboard")
        except UnicodeEncodeError:
            raise ValueError(f"{run_folder}: it needs a path in UTF-8; choose another out") from None

    def log(self, rows: Sequence[tuple[int, Scalars]]) -> None:
        for batch, scalars in rows:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, batch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Logs a run of Weights & Biases. Its mode, project and account are those of its own environment variables."""

    def __init__(self, run_folder: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=one_line(run_folder.name),
            id=run_id,
            resume="allow",
            dir=run_folder,
            config=dict(settings),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, rows: Sequence[tuple[int, Scalars]]) -> None:
        for batch, scalars in rows:
            self.run.log(scalars, step=batch)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """Logs a run of MLflow, to the tracking server and the experiment of its own environment variables."""

    def __init__(self, run_folder: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        import mlflow

        self.client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        found = self.client.search_runs([experiment_id], f"tags.fastpets_id = '{run_id}'")
        if found:  # by the run that is resumed
            self.run_id = found[0].info.run_id
            return
        tags = {"fastpets_id": run_id}
        self.run_id = self.client.create_run(experiment_id, tags=tags, run_name=one_line(run_folder.name)).info.run_id
        parameters = [mlflow.entities.Param(key, one_line(str(value))) for key, value in settings.items()]
        for start in range(0, len(parameters), PARAMETERS_PER_REQUEST):
            self.client.log_batch(self.run_id, params=parameters[start : start + PARAMETERS_PER_REQUEST])

    def log(self, rows: Sequence[tuple[int, Scalars]]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(_allowed(name), value, now, batch) for batch, scalars in rows for name, value in scalars.items()
        ]
        for start in range(0, len(metrics), PER_REQUEST):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + PER_REQUEST])

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


ADVICE = {
    "wandb": "`wandb login`, or WANDB_MODE=offline",
    "mlflow": "MLFLOW_TRACKING_URI; its local store needs sqlalchemy and alembic",
}
TRACKERS: dict[str, type[TensorBoard | WandB | MLflow]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def check_installed(names: Sequence[str]) -> None:
    """Raises FastpetsError if the library of a tracker is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise FastpetsError(f"track: {name} is not installed; pip install {name}")


class TrackerLog:
    """Logs the epochs of a run to its trackers.

    A resumed run has logged its first `num_batches` batches before. Raises FastpetsError if a tracker cannot start.
    """

    def __init__(
        self, names: Sequence[str], run_folder: Path, run_id: str, settings: Mapping[str, Any], num_batches: int = 0
    ) -> None:
        self.run_folder, self.num_batches = run_folder, num_batches
        self.trackers: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            try:
                self.trackers[name] = TRACKERS[name](run_folder, run_id, settings)
            except Exception as error:  # each library has its own
                self.close()
                raise FastpetsError(
                    f"track: {name} does not start: {type(error).__name__}: {error}; see its own settings "
                    f"({ADVICE.get(name, 'none')}), or leave it out"
                ) from None

    def log_epoch(self, result: EpochResult, recorder: Recorder) -> None:
        """Logs the loss and the learning rate of each of the epoch's batches, and the results of the epoch.

        A tracker that fails is a warning.
        """
        rows: list[tuple[int, Scalars]] = [
            (batch + 1, {"train/loss": recorder.losses[batch], "train/lr": recorder.rates[batch]})
            for batch in range(self.num_batches, result.batches)
        ]
        self.num_batches = result.batches
        at_end = rows.pop()[1] if rows else {}
        rows.append((result.batches, at_end | epoch_scalars(result)))
        for name, tracker in self.trackers.items():
            with failure_is_a_warning(self.run_folder / name):
                tracker.log(rows)

    def close(self) -> None:
        """Ends all logs."""
        for name, tracker in self.trackers.items():
            with failure_is_a_warning(self.run_folder / name):
                tracker.close()


def epoch_scalars(result: EpochResult) -> Scalars:
    """The results of an epoch, by the names under which they are logged."""
    return {
        "train/smoothed_loss": result.train_loss,
        "train/images_per_sec": result.images_per_sec,
        "train/input_share": result.input_share,
        "valid/loss": result.valid_loss,
        "valid/error_rate": result.error_rate,
        **{f"valid/{one_line(name)}": value for name, value in result.metrics.items()},
    }


def _allowed(name: str) -> str:
    """A metric's name with only the characters that MLflow allows."""
    return "".join(char if char.isalnum() or char in "_-. /:" else "_" for char in name)

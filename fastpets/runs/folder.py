"""The run folder: what a training run leaves, each file written beside its place and moved in whole."""

import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpets.errors import FastpetsError
from fastpets.models.weights import save_weights
from fastpets.utils.atomic import write_atomically

if TYPE_CHECKING:
    from fastpets.models.classifier import Classifier
    from fastpets.training.history import EpochResult
    from fastpets.training.lr_finder import RateCurve
    from fastpets.training.recorder import Recorder


def write_bad_files(path: Path, problems: dict[str, str]) -> None:
    """A CSV with the columns file and problem."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "problem"))
        writer.writerows(problems.items())


class RunFolder:
    """What a run leaves: config.json, metrics.csv, steps.csv, model.safetensors and model.json, and more where asked.

    A new folder, unless the run goes on in it. Raises FastpetsError if there is something else already.
    """

    def __init__(self, path: Path, *, goes_on: bool = False) -> None:
        if not goes_on and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FastpetsError(f"--out {path}: there is something already, expected a new or an empty folder")
        path.mkdir(parents=True, exist_ok=True)
        self.path = path

    def save_config(self, settings: dict[str, Any], resolved: dict[str, Any]) -> None:
        """config.json: all settings of the run, and what was made of those that leave a choice."""
        config = {"settings": settings, "resolved": resolved}
        self._write("config.json", lambda path: path.write_text(json.dumps(config, indent=2, default=str) + "\n"))

    def save_history(self, history: Sequence["EpochResult"]) -> None:
        """metrics.csv: a row for each epoch."""
        rows = [dataclasses.asdict(result) for result in history]
        for row in rows:
            row |= row.pop("metrics")
        self._write("metrics.csv", lambda path: _write_rows(path, rows))

    def save_steps(self, recorder: "Recorder") -> None:
        """steps.csv: the learning rate of the head and the loss of each batch, and that loss smoothed."""
        columns = {"lr": recorder.rates, "loss": recorder.losses, "smoothed_loss": recorder.smoothed}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self._write("steps.csv", lambda path: _write_rows(path, rows))

    def save_rate_curve(self, curve: "RateCurve") -> None:
        """lr_finder.csv and lr_finder.png: a sweep of the rate finder."""
        rows = [{"lr": lr, "loss": loss} for lr, loss in zip(curve.rates, curve.losses, strict=True)]
        self._write("lr_finder.csv", lambda path: _write_rows(path, rows))
        self._write("lr_finder.png", curve.plot)

    def save_bad_files(self, problems: dict[str, str]) -> None:
        """bad_files.csv: each image that could not be used, and what was wrong with it."""
        self._write("bad_files.csv", lambda path: write_bad_files(path, problems))

    def save_model(self, model: "Classifier", description: dict[str, Any]) -> None:
        """model.safetensors and model.json: the weights, and all else that a prediction needs."""
        save_weights(model, self.path / "model.safetensors")
        self._write("model.json", lambda path: path.write_text(json.dumps(description, indent=2) + "\n"))

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        write_atomically(self.path / name, write)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

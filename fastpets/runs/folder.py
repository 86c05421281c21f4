"""The run folder: the files that a training run writes, each of them atomically."""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpets.errors import InvalidArgumentError
from fastpets.training.history import EpochResult
from fastpets.training.lr_finder import RateCurve
from fastpets.training.recorder import Recorder
from fastpets.utils.atomic import write_atomically


class RunFolder:
    """The folder of a run, with config.json, metrics.csv, steps.csv and, where they apply, other files.

    Raises InvalidArgumentError if `path` exists and is not an empty folder, unless the run is resumed.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        if not resume and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InvalidArgumentError(f"out: {path} exists and is not empty, expected a new or an empty folder")
        path.mkdir(parents=True, exist_ok=True)
        self.path = path

    def save_config(self, settings: dict[str, Any], resolved: dict[str, Any]) -> None:
        """Writes config.json: the settings as given, and what was chosen for those that are automatic."""
        text = json.dumps({"settings": settings, "resolved": resolved}, indent=2, default=str) + "\n"
        write_atomically(self.path / "config.json", lambda staging: staging.write_text(text))

    def save_history(self, history: Sequence[EpochResult]) -> None:
        """Writes metrics.csv, a row per epoch."""
        rows = [dataclasses.asdict(result) for result in history]
        for row in rows:
            row |= row.pop("metrics")
        self._save_rows("metrics.csv", rows)

    def save_steps(self, recorder: Recorder) -> None:
        """Writes steps.csv: the head's learning rate, the loss and the smoothed loss of each batch."""
        columns = {"lr": recorder.rates, "loss": recorder.losses, "smoothed_loss": recorder.smoothed}
        self._save_rows(
            "steps.csv", [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        )

    def save_rate_curve(self, curve: RateCurve) -> None:
        """Writes lr_finder.csv and lr_finder.png."""
        rows = [{"lr": lr, "loss": loss} for lr, loss in zip(curve.rates, curve.losses, strict=True)]
        self._save_rows("lr_finder.csv", rows)
        write_atomically(self.path / "lr_finder.png", curve.plot)

    def save_bad_files(self, problems: dict[str, str]) -> None:
        """Writes bad_files.csv: the images that could not be used."""
        write_atomically(self.path / "bad_files.csv", lambda staging: write_bad_files(staging, problems))

    def _save_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        def write(staging: Path) -> None:
            with open(staging, "w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path / name, write)


def write_bad_files(path: Path, problems: dict[str, str]) -> None:
    """Writes a CSV with the columns file and problem. Bytes of file names that are not UTF-8 are kept."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "problem"))
        writer.writerows(problems.items())

"""The run folder and its files, which are written atomically."""

import csv
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpets.errors import InvalidArgumentError, out_must_be_writable
from fastpets.training.history import EpochResult
from fastpets.training.lr_finder import RateCurve
from fastpets.training.recorder import Recorder
from fastpets.utils.atomic import write_atomically


class RunFolder:
    """The folder of a run, with config.json, metrics.csv and steps.csv, and other files if the run has them.

    Raises InvalidArgumentError if the folder cannot be made, or if it is not empty and the run is new.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        if not resume:
            check_new(path)
        with out_must_be_writable(path):
            path.mkdir(parents=True, exist_ok=True)
        self.path = path

    def save_config(self, settings: dict[str, Any], resolved: dict[str, Any]) -> None:
        """Writes config.json: the settings as given, and the values of those that are automatic."""
        text = json.dumps({"settings": settings, "resolved": resolved}, indent=2, default=str) + "\n"
        with out_must_be_writable(self.path):
            write_atomically(self.path / "config.json", lambda staging: staging.write_text(text, encoding="utf-8"))

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

    def save_test(self, values: Mapping[str, float]) -> None:
        """Writes test_metrics.csv: the loss and the metrics of the test images, in one row."""
        with out_must_be_writable(self.path):
            self._save_rows("test_metrics.csv", [values])

    def save_bad_files(self, problems: dict[str, str]) -> int:
        """Adds the images that cannot be used to bad_files.csv. Returns the number of images in it."""
        file = self.path / "bad_files.csv"
        if file.exists():
            problems = read_bad_files(file) | problems
        if problems:
            with out_must_be_writable(file):
                write_atomically(file, lambda staging: write_bad_files(staging, problems))
        return len(problems)

    def _save_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        def write(staging: Path) -> None:
            with open(staging, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path / name, write)


def check_new(path: Path) -> None:
    """Raises InvalidArgumentError unless `path` is an empty folder, or one that can be made. Makes nothing.

    A folder with the config.json of a run that ended before its first checkpoint counts as empty.
    """
    with out_must_be_writable(path):
        if path.exists() and (not path.is_dir() or {file.name for file in path.iterdir()} - {"config.json"}):
            raise InvalidArgumentError(f"out: {path} exists and is not empty, expected a new or an empty folder")
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            raise InvalidArgumentError(f"out: {path}: {above} is no folder that this process may write to; choose one")


def write_bad_files(path: Path, problems: dict[str, str]) -> None:
    """Writes a CSV with the columns file and problem. Bytes of file names that are not UTF-8 are kept."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "problem"))
        writer.writerows(problems.items())


def read_bad_files(path: Path) -> dict[str, str]:
    """The problem of each file in a CSV that `write_bad_files` has written."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["file"]: row["problem"] for row in csv.DictReader(file)}


def read_resolved(run_folder: Path) -> dict[str, Any]:
    """The values of automatic settings in a run folder's config.json; none if there is no such file."""
    file = run_folder / "config.json"
    return json.loads(file.read_text(encoding="utf-8"))["resolved"] if file.exists() else {}

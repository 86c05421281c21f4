"""The run folder: what a training run leaves, each file written beside its place and moved in whole."""

import contextlib
import csv
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from fastpets.errors import FastpetsError

if TYPE_CHECKING:
    from fastpets.learner import EpochResult
    from fastpets.model import Classifier


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Has a file written beside its place and moves it in when it is whole; else what was there stays."""
    staging = path.with_name(f".{path.name}.part")
    try:
        write(staging)
        os.replace(staging, path)
    finally:
        with contextlib.suppress(OSError):
            staging.unlink()  # it is there still if writing was interrupted


def write_bad_files(path: Path, problems: dict[str, str]) -> None:
    """A CSV with the columns file and problem."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "problem"))
        writer.writerows(problems.items())


class RunFolder:
    """A new folder with config.json, metrics.csv, and from the first epoch's end model.safetensors and model.json."""

    def __init__(self, path: Path) -> None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FastpetsError(f"--out {path}: there is something already, expected a new or an empty folder")
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def save_config(self, config: dict[str, Any]) -> None:
        """config.json: all settings of the run, as they were resolved."""
        self._write("config.json", lambda path: path.write_text(json.dumps(config, indent=2, default=str) + "\n"))

    def add_result(self, result: "EpochResult") -> None:
        """metrics.csv: one more row, of an epoch's numbers."""
        self.rows.append(dataclasses.asdict(result))
        self._write("metrics.csv", self._write_rows)

    def save_bad_files(self, problems: dict[str, str]) -> None:
        """bad_files.csv: each picture that could not be used, and what was wrong with it."""
        self._write("bad_files.csv", lambda path: write_bad_files(path, problems))

    def save_model(self, model: "Classifier", description: dict[str, Any]) -> None:
        """model.safetensors and model.json: the weights, and all else that a prediction needs."""
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        self._write("model.safetensors", lambda path: path.write_bytes(save(state)))
        self._write("model.json", lambda path: path.write_text(json.dumps(description, indent=2) + "\n"))

    def _write_rows(self, path: Path) -> None:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        write_whole(self.path / name, write)

"""The files of a run folder: their names, and how its settings and tables are read and written.

Does not import torch.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpets.errors import FastpetsError, InvalidArgumentError, reason
from fastpets.utils.atomic import write_atomically

CONFIG = "config.json"
IMAGES = "images.parquet"
METRICS = "metrics.csv"
STEPS = "steps.csv"
RATE_CURVE = "lr_finder.csv"
TEST_METRICS = "test_metrics.csv"
TTA_METRICS = "tta_metrics.csv"
BAD_FILES = "bad_files.csv"
FOLDS = "folds.csv"
PREDICTIONS = "predictions.parquet"
REPORT = "report.html"

Row = dict[str, str]  # of a table, by column


def check_run(name: str, run: Path) -> None:
    """Raises InvalidArgumentError, which names the parameter, unless there is a folder."""
    if not run.is_dir():
        found = "a file" if run.exists() else "nothing there"
        raise InvalidArgumentError(f"{name}: {run}: {found}, expected the folder of a run")


def read_about(file: Path) -> dict[str, dict[str, Any]]:
    """The `settings` and the `resolved` values in a config.json. Raises FastpetsError."""
    try:
        contents = json.loads(file.read_text(encoding="utf-8"))
        return {"settings": dict(contents["settings"]), "resolved": dict(contents.get("resolved", {}))}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FastpetsError(f"{file}: {reason(error)}, expected the settings of a run") from None


def read_resolved(run_folder: Path) -> dict[str, Any]:
    """The values of automatic settings in config.json; none if there is no such file. Raises FastpetsError."""
    file = run_folder / CONFIG
    return read_about(file)["resolved"] if file.exists() else {}


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Writes a CSV atomically. Its columns are those of all rows, and `columns` if there are no rows.

    Floats have 7 significant digits, as many as float32 has. Bytes of names that are not UTF-8 are kept.
    """
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])

    def write(staging: Path) -> None:
        with open(staging, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(names))
            writer.writeheader()
            writer.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)

    write_atomically(file, write)


def _rounded(value: Any) -> Any:
    return f"{value:.7g}" if isinstance(value, float) else value


def read_rows(file: Path) -> list[Row]:
    """The rows of a CSV; none if there is no such file."""
    if not file.exists():
        return []
    with open(file, newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))


def write_bad_files(file: Path, problems: Mapping[str, str]) -> None:
    """Writes a CSV of the files that cannot be used and what is wrong with each."""
    rows = [{"file": path, "problem": problem} for path, problem in problems.items()]
    write_rows(file, rows, columns=("file", "problem"))


def read_bad_files(file: Path) -> dict[str, str]:
    """The problem of each file in a CSV by `write_bad_files`; none if there is no such file."""
    return {row["file"]: row["problem"] for row in read_rows(file)}

"""The HTML report of a run: one file, which loads no other, with curves, confusion matrix and mistakes."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from fastpets.analysis.interpretation import Interpretation
from fastpets.analysis.plots import MAX_NAMED_CLASSES
from fastpets.runs.hints import MAX_INPUT_SHARE
from fastpets.training.lr_finder import SKIPPED_LAST
from fastpets.utils.atomic import write_atomically
from fastpets.utils.figures import MAX_TITLE_LENGTH

MAX_IMAGES = 200  # of mistakes, about 6 kB each
MAX_POINTS = 1000  # per curve
THUMBNAIL_PX = 112
# What the page shows, passed to its script. Its other limits are those of the modules that compute the values.
LIMITS = {
    "inputShare": MAX_INPUT_SHARE,
    "namedClasses": MAX_NAMED_CLASSES,
    "nameLength": MAX_TITLE_LENGTH,
    "firstMistakes": 24,
    "confusedPairs": 20,
}
# Settings of comparable runs.
SAME_IMAGES = ("data", "label_from", "label_pattern", "labels", "split", "valid_share", "k_fold", "split_seed")


def write_report(run_folder: Path, interpretation: Interpretation, command: str) -> Path:
    """Writes report.html from the other files in a run folder and the predictions on its validation images.

    `command` is the command line that repeats the run. Returns the path of the report.
    """
    environment = Environment(
        loader=PackageLoader("fastpets.analysis", "."), autoescape=True, undefined=StrictUndefined
    )
    values = {
        "name": run_folder.resolve().name,
        "data": page_data(run_folder, interpretation),
        "command": command,
        "config": json.loads((run_folder / "config.json").read_text(encoding="utf-8")),
        "bad_files": _rows(run_folder / "bad_files.csv", numbers=False),
    }
    page = environment.get_template("report.html.jinja").render(_plain(values))
    path = run_folder / "report.html"
    write_atomically(path, lambda staging: staging.write_text(page, encoding="utf-8"))
    return path


def page_data(run_folder: Path, interpretation: Interpretation) -> dict[str, Any]:
    """The numbers and strings that the page's script shows."""
    means, accuracies, _ = interpretation.calibration()
    matrix = interpretation.confusion_matrix()
    mistakes = interpretation.mistakes()
    number_of = {name: number for number, name in enumerate(interpretation.classes)}
    rates = _rows(run_folder / "lr_finder.csv")
    return {
        "limits": LIMITS,
        "epochs": _rows(run_folder / "metrics.csv"),
        "steps": _thinned(_rows(run_folder / "steps.csv")),
        "rates": rates[:-SKIPPED_LAST] if len(rates) > 2 * SKIPPED_LAST else rates,  # the loss explodes at the end
        "classes": list(interpretation.classes),
        "matrix": [[i, j, matrix[i, j]] for i, j in zip(*np.nonzero(matrix), strict=True)],
        "confused": interpretation.most_confused(2),
        "perClass": interpretation.per_class(),
        "calibration": {"confidence": means, "accuracy": accuracies},
        "calibrationError": interpretation.calibration_error(),
        "mistakes": [
            {**m._asdict(), "pair": [number_of[m.actual], number_of[m.predicted]], "image": image}
            for m, image in zip(mistakes[:MAX_IMAGES], _thumbnails(interpretation), strict=True)
        ],
        "numMistakes": len(mistakes),
        "numImages": len(interpretation.labels),
        "previous": previous_run(run_folder),
    }


def previous_run(run_folder: Path) -> dict[str, Any] | None:
    """Name and last epoch of the latest earlier run in the same parent folder that has the same images, if any."""
    own = _config(run_folder)
    if own is None:
        return None
    earlier = []
    for file in run_folder.resolve().parent.glob("*/config.json"):
        other = _config(file.parent)
        rows = _rows(file.with_name("metrics.csv"))
        if rows and other and other["started"] < own["started"] and other["images"] == own["images"]:
            earlier.append((other["started"], file.parent.name, rows[-1]))
    if not earlier:
        return None
    _, name, last = max(earlier, key=lambda run: run[0])
    return {"name": name, **last}


def _config(run_folder: Path) -> dict[str, Any] | None:
    """When a run was started, and the settings that define its images; None if config.json does not say."""
    try:
        config = json.loads((run_folder / "config.json").read_text(encoding="utf-8"))
        images = [config["settings"].get(name) for name in SAME_IMAGES]
        return {"started": datetime.fromisoformat(config["resolved"]["started"]), "images": images}
    except (OSError, ValueError, TypeError, KeyError):  # no run, or one of an earlier version
        return None


def _thumbnails(interpretation: Interpretation) -> Iterator[str]:
    """Yields the first MAX_IMAGES mistakes, as the model sees them, as data URLs."""
    for pixels in interpretation.pixels(interpretation.mistaken_ids()[:MAX_IMAGES]):
        image, file = Image.fromarray(pixels), io.BytesIO()
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        image.save(file, "JPEG", quality=80)
        yield "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _rows(path: Path, numbers: bool = True) -> list[dict[str, Any]]:
    """The rows of a CSV, with strings that are numbers parsed if `numbers`; none if the file does not exist."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    return [{name: _number(text) for name, text in row.items()} for row in rows] if numbers else rows


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _thinned(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The columns of up to MAX_POINTS evenly spaced rows, and `batch`, the numbers of these rows from 1."""
    chosen = sorted({round(n) for n in np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS))})
    columns = {name: [rows[n][name] for n in chosen] for name in (rows[0] if rows else ())}
    return {"batch": [n + 1 for n in chosen], **columns}


def _plain(value: Any) -> Any:
    """Converts a value for JSON and UTF-8: Python's numbers, None for NaN and infinity, escaped bytes in strings."""
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value

"""The HTML report of a run: one file, which loads no other, with curves, confusion matrix and mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastpets.analysis import page
from fastpets.analysis.grad_cam import overlays
from fastpets.analysis.interpretation import Interpretation
from fastpets.analysis.page import MAX_IMAGES, linked, thumbnail, write_page
from fastpets.analysis.plots import MIN_BIN_IMAGES
from fastpets.errors import FastpetsError, counted
from fastpets.runs.files import (
    BAD_FILES,
    CONFIG,
    METRICS,
    RATE_CURVE,
    REPORT,
    STEPS,
    TEST_METRICS,
    TTA_METRICS,
    Row,
    read_about,
    read_resolved,
    read_rows,
)
from fastpets.runs.images import PARTS, VALIDATION, count_images, same_images
from fastpets.training.history import EpochResult
from fastpets.training.lr_finder import RateCurve

NUM_EXPLAINED = 24  # mistakes with Grad-CAM
MAX_POINTS = 1000  # per curve
# What the page shows, passed to its script.
LIMITS = page.LIMITS | {
    "binImages": MIN_BIN_IMAGES,
    "matrixClasses": 60,
    "confusedPairs": 20,
}
COLUMNS = {field.name for field in fields(EpochResult)}  # of metrics.csv; the others are metrics


def write_report(run_folder: Path, interpretation: Interpretation, command: str = "", *, grad_cam: bool = True) -> Path:
    """Writes report.html from the other files in a run folder and the predictions on its validation images.

    `command` is the command line that repeats the run, if there is one. With `grad_cam`, the worst mistakes show which
    places of the image speak for the predicted class, if the interpretation has its model and that is a convolutional
    network. Returns the path of the report.
    """
    about = run_folder / CONFIG
    config = read_about(about) if about.exists() else {}
    values = {
        "name": run_folder.resolve().name,
        "facts": _facts(run_folder, config, interpretation),
        "data": page_data(run_folder, interpretation) | {"heats": _heats(interpretation) if grad_cam else []},
        "command": command,
        "config": config,
        "bad_files": read_rows(run_folder / BAD_FILES),
    }
    return write_page(run_folder / REPORT, "report.html.jinja", values)


def page_data(run_folder: Path, interpretation: Interpretation) -> dict[str, Any]:
    """The numbers and strings that the page's script shows."""
    confidence, accuracy, counts = interpretation.calibration()
    matrix = interpretation.confusion_matrix()
    mistakes = interpretation.mistakes()
    number_of = {name: number for number, name in enumerate(interpretation.classes)}
    epochs = [{name: value for name, value in row.items() if "/" not in name} for row in _rows(run_folder / METRICS)]
    shown = interpretation.pixels(interpretation.mistaken_ids()[:MAX_IMAGES])
    return {
        "limits": LIMITS,
        "epochs": epochs,
        "metrics": [name for name in (epochs[-1] if epochs else ()) if name not in COLUMNS],
        "tta": _last(run_folder / TTA_METRICS),
        "test": _last(run_folder / TEST_METRICS),
        "steps": _thinned(_rows(run_folder / STEPS)),
        **_rate_curve(read_rows(run_folder / RATE_CURVE)),
        "classes": list(interpretation.classes),
        "matrix": [[i, j, matrix[i, j]] for i, j in zip(*np.nonzero(matrix), strict=True)],
        "confused": interpretation.most_confused(2),
        "perClass": interpretation.per_class(),
        "calibration": [
            {"confidence": c, "accuracy": a, "images": n} for c, a, n in zip(confidence, accuracy, counts, strict=True)
        ],
        "calibrationError": interpretation.calibration_error(),
        "mistakes": [
            (
                linked(m.path),
                number_of[m.actual],
                number_of[m.predicted],
                float(f"{m.loss:.4g}"),
                float(f"{m.probability:.4g}"),
            )
            for m in mistakes
        ],
        "images": [thumbnail(pixels) for pixels in shown],  # of the first mistakes
        "numMistakes": len(mistakes),
        "numImages": len(interpretation.labels),
        "previous": previous_run(run_folder),
    }


def previous_run(run_folder: Path) -> dict[str, Any] | None:
    """Name and last epoch of the latest earlier run beside this one with the same validation images, if any."""
    own = _started(run_folder)
    if own is None:
        return None
    earlier = []
    for file in run_folder.resolve().parent.glob(f"*/{CONFIG}"):
        started = _started(file.parent)
        if started is not None and started < own and file.with_name(METRICS).exists():
            earlier.append((started, file.parent))
    for _, folder in sorted(earlier, key=lambda run: run[0], reverse=True):
        if same_images(run_folder, folder, VALIDATION) and (last := _last(folder / METRICS)):
            return {"name": folder.name, **last}
    return None


def _started(run_folder: Path) -> datetime | None:
    """When a run was started; None if config.json does not say."""
    try:
        return datetime.fromisoformat(read_resolved(run_folder)["started"])
    except (FastpetsError, ValueError, TypeError, KeyError):  # no run, or one of an earlier version
        return None


def _facts(run_folder: Path, config: dict[str, Any], interpretation: Interpretation) -> list[tuple[str, str]]:
    """What the head of the page says of a run: labels and values. Those that its files do not tell are left out."""
    settings, resolved = config.get("settings", {}), config.get("resolved", {})
    arch = settings.get("arch") or resolved.get("arch") or getattr(interpretation.model, "arch", "")
    weights = settings.get("weights") or resolved.get("weights", "")
    size = " x ".join(str(side) for side in reversed(interpretation.loader.preprocessing.size))
    started_from = {"": "", "none": ", from random weights", "default": ", pretrained"}.get(
        weights, f", weights of {weights}"
    )
    images = count_images(run_folder) or Counter({VALIDATION: len(interpretation.labels)})
    counts = " and ".join(f"{images[part]:,} {part}" for part in PARTS if images[part])
    data = settings.get("data") or settings.get("labels") or resolved.get("data")
    data = data or ("Oxford-IIIT Pet" if settings else "")
    facts = [
        ("model", f"{arch}{started_from}, {size} px"),
        ("data", f"{data}: " * bool(data) + f"{counted(len(interpretation.classes), 'class')}, {counts} images"),
    ]
    if (started := _started(run_folder)) is not None:
        facts.append(("started", f"{started:%Y-%m-%d %H:%M} {started.tzname() or ''}"))
    if seconds := sum(row["seconds"] for row in _rows(run_folder / METRICS)):
        facts.append(("training took", _duration(seconds) + f" on {resolved['device']}" * ("device" in resolved)))
    return facts


def _heats(interpretation: Interpretation) -> list[str]:
    """Grad-CAM of the first mistakes, for the predicted classes; none without a model, or for a transformer."""
    if interpretation.model is None:
        return []
    ids = interpretation.mistaken_ids()[:NUM_EXPLAINED]
    predicted = dict(zip(interpretation.ids.tolist(), interpretation.predicted.tolist(), strict=True))
    classes = np.array([predicted[item] for item in ids.tolist()], np.int64)
    try:
        return [thumbnail(pixels) for pixels in overlays(interpretation.model, interpretation.loader, ids, classes)]
    except FastpetsError:
        return []


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _rate_curve(rows: list[Row]) -> dict[str, Any]:
    """The curve of the learning rate finder, and its suggestions as points on the curve."""
    if not rows:
        return {"rates": [], "suggestions": []}
    curve = RateCurve.from_rows(rows)
    points = [
        {"name": name, "x": rate, "y": np.interp(np.log(rate), np.log(curve.rates), curve.losses)}
        for name, rate in curve.suggestions().items()
    ]
    shown = [{"lr": rate, "loss": loss} for rate, loss in zip(*curve.shown(), strict=True)]
    return {"rates": shown, "suggestions": points}


def _last(path: Path) -> dict[str, Any] | None:
    """The last row of a CSV, without the values of single classes; None if the file does not exist."""
    rows = _rows(path)
    return {name: value for name, value in rows[-1].items() if "/" not in name} if rows else None


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV with strings that are numbers parsed; none if the file does not exist."""
    return [{name: _number(text) for name, text in row.items()} for row in read_rows(path)]


def _number(text: str) -> float | str | None:
    """A number, another text, or None for an empty cell."""
    try:
        return float(text)
    except ValueError:
        return text or None


def _thinned(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The columns of up to MAX_POINTS evenly spaced rows, and `batch`, the numbers of these rows from 1."""
    chosen = sorted({round(n) for n in np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS))})
    columns = {name: [rows[n][name] for n in chosen] for name in (rows[0] if rows else ())}
    return {"batch": [n + 1 for n in chosen], **columns}

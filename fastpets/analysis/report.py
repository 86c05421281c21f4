"""The HTML report of a run: one file with all curves, the confusion matrix and the mistakes; needs no network."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from fastpets.analysis.interpretation import Interpretation
from fastpets.loading.display import to_pixels
from fastpets.utils.atomic import write_atomically

MAX_IMAGES = 200  # of mistakes, about 6 kB each
MAX_POINTS = 1000  # per curve
THUMBNAIL_PX = 112


def write_report(run: Path, interpretation: Interpretation, command: str) -> Path:
    """Writes report.html from the other files in a run folder and the predictions on its validation images.

    `command` is the command line that repeats the run. Returns the path of the report.
    """
    environment = Environment(
        loader=PackageLoader("fastpets.analysis", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        name=run.name,
        data=page_data(run, interpretation),
        command=command,
        config=json.loads((run / "config.json").read_text()),
        bad_files=_rows(run / "bad_files.csv"),
    )
    path = run / "report.html"
    write_atomically(path, lambda staging: staging.write_text(page, encoding="utf-8"))
    return path


def page_data(run: Path, interpretation: Interpretation) -> dict[str, Any]:
    """The numbers and strings that the page's script shows, as JSON can represent them."""
    epochs = _rows(run / "metrics.csv")
    means, accuracies, counts = interpretation.calibration()
    matrix = interpretation.confusion_matrix()
    mistakes = interpretation.mistakes()
    number_of = {name: number for number, name in enumerate(interpretation.classes)}
    return _plain(
        {
            "epochs": epochs,
            "steps": _thinned(_rows(run / "steps.csv")),
            "rates": _rows(run / "lr_finder.csv"),
            "classes": list(interpretation.classes),
            "matrix": [[i, j, matrix[i, j]] for i, j in zip(*np.nonzero(matrix), strict=True)],
            "confused": interpretation.most_confused(2),
            "perClass": interpretation.per_class(),
            "calibration": {"confidence": means, "accuracy": accuracies, "counts": counts},
            "calibrationError": interpretation.calibration_error(),
            "mistakes": [
                {**m._asdict(), "pair": [number_of[m.actual], number_of[m.predicted]], "image": image}
                for m, image in zip(mistakes, _thumbnails(interpretation, len(mistakes)), strict=False)
            ],
            "numMistakes": len(mistakes),
            "numImages": len(interpretation.labels),
            "previous": previous_run(run),
        }
    )


def previous_run(run: Path) -> dict[str, Any] | None:
    """Name and last epoch of the run that was started before this one in the same parent folder, if there is one."""
    others = [path.parent for path in run.absolute().parent.glob("*/metrics.csv") if path.parent != run.absolute()]
    earlier = [
        path for path in others if (path / "config.json").stat().st_mtime < (run / "config.json").stat().st_mtime
    ]
    if not earlier:
        return None
    latest = max(earlier, key=lambda path: (path / "config.json").stat().st_mtime)
    rows = _rows(latest / "metrics.csv")
    return {"name": latest.name, **rows[-1]} if rows else None


def _thumbnails(interpretation: Interpretation, count: int) -> list[str]:
    """The first `count` mistakes, up to MAX_IMAGES, as the model sees them, as data URLs."""
    ids = interpretation.mistaken_ids()[: min(count, MAX_IMAGES)]
    if len(ids) == 0:
        return []
    loader = interpretation.loader
    chosen = loader.like(loader.dataset.select(ids), shuffle=False, on_bad_file="replace")
    urls = []
    for batch in chosen:
        for pixels in to_pixels(batch.images, chosen.preprocessing):
            image, file = Image.fromarray(pixels), io.BytesIO()
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            image.save(file, "JPEG", quality=80)
            urls.append("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())
    return urls


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV, with numbers parsed; none if the file does not exist."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _thinned(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The columns of up to MAX_POINTS evenly spaced rows, and the numbers of these rows, from 1, as `batch`."""
    chosen = sorted({round(n) for n in np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS))})
    columns = {name: [rows[n][name] for n in chosen] for name in (rows[0] if rows else ())}
    return {"batch": [n + 1 for n in chosen], **columns}


def _plain(value: Any) -> Any:
    """The value as JSON can represent it: NumPy's numbers as Python's, NaN and infinity as null, valid Unicode."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.encode(errors="replace").decode() if isinstance(value, str) else value

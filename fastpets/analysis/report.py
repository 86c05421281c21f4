"""The report: one page, in one file, that shows a whole run; it needs no network."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from fastpets.analysis.interpretation import Interpretation
from fastpets.loading.display import to_pixels
from fastpets.runs.config import TrainConfig
from fastpets.utils.atomic import write_atomically

MOST_IMAGES = 200  # of mistakes, the worst first: some 6 kB each
MOST_POINTS = 1000  # of a curve
SIDE = 112  # px, of an image in the page


def write_report(run: Path, interpretation: Interpretation, arguments: dict[str, Any]) -> Path:
    """Writes report.html into a run folder, from what lies there and the predictions on the validation images.

    `arguments` are the flags that were given, by name, for the command to repeat the run.
    """
    environment = Environment(
        loader=PackageLoader("fastpets.analysis", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        name=run.name,
        data=facts(run, interpretation),
        command=command(arguments),
        config=json.loads((run / "config.json").read_text()),
        bad_files=_rows(run / "bad_files.csv"),
    )
    path = run / "report.html"
    write_atomically(path, lambda staging: staging.write_text(page, encoding="utf-8"))
    return path


def facts(run: Path, interpretation: Interpretation) -> dict[str, Any]:
    """What the page's script draws, as plain numbers and texts."""
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
            "before": before(run),
        }
    )


def before(run: Path) -> dict[str, Any] | None:
    """The last numbers of the run before this one in the same folder, if there is one."""
    others = [path.parent for path in run.absolute().parent.glob("*/metrics.csv") if path.parent != run.absolute()]
    earlier = [
        path for path in others if (path / "config.json").stat().st_mtime < (run / "config.json").stat().st_mtime
    ]
    if not earlier:
        return None
    latest = max(earlier, key=lambda path: (path / "config.json").stat().st_mtime)
    rows = _rows(latest / "metrics.csv")
    return {"name": latest.name, **rows[-1]} if rows else None


def command(arguments: dict[str, Any]) -> str:
    """The command line of a run, from the flags that are not at their defaults."""
    words = ["python", "-m", "fastpets.train"]
    defaults = TrainConfig()
    for name, value in arguments.items():
        if name in ("out", "resume") or value == getattr(defaults, name):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, *map(str, value)] if isinstance(value, tuple) else [flag, str(value)]
    return shlex.join(words)


def _thumbnails(interpretation: Interpretation, count: int) -> list[str]:
    """The images with the highest losses among the mistakes, as the model sees them, as data addresses."""
    ids = interpretation.mistaken_ids()[: min(count, MOST_IMAGES)]
    if len(ids) == 0:
        return []
    loader = interpretation.loader
    chosen = loader.like(loader.dataset.select(ids), shuffle=False, on_bad_file="replace")
    addresses = []
    for batch in chosen:
        for pixels in to_pixels(batch.images, chosen.preprocessing):
            image, file = Image.fromarray(pixels), io.BytesIO()
            image.thumbnail((SIDE, SIDE))
            image.save(file, "JPEG", quality=80)
            addresses.append("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())
    return addresses


def _rows(path: Path) -> list[dict[str, Any]]:
    """A CSV's rows, with numbers where there are any; none if it is not there."""
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
    """Evenly chosen rows, by column, with their numbers from 1 on."""
    chosen = sorted({round(n) for n in np.linspace(0, len(rows) - 1, min(len(rows), MOST_POINTS))})
    columns = {name: [rows[n][name] for n in chosen] for name in (rows[0] if rows else ())}
    return {"batch": [n + 1 for n in chosen], **columns}


def _plain(value: Any) -> Any:
    """What JSON can say: NumPy's numbers as Python's, what is no number as null, no odd letters."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.encode(errors="replace").decode() if isinstance(value, str) else value

"""The images whose labels may be wrong, as a CSV and as an HTML page to browse them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastpets.analysis.confident_learning import find_suspects
from fastpets.analysis.interpretation import Interpretation
from fastpets.analysis.page import LIMITS, MAX_IMAGES, linked, thumbnail, write_page
from fastpets.runs.files import write_rows

CSV, PAGE = "suspects.csv", "suspects.html"


class Suspect(NamedTuple):
    """An image whose label may be wrong: a row of the CSV."""

    file: str
    part: str
    label: str
    suggested: str
    label_probability: float
    suggested_probability: float


def find(interpretations: Mapping[str, Interpretation]) -> list[tuple[Suspect, int]]:
    """The suspects of several parts of a data set, with their item ids; the least probable label first.

    `interpretations` are the predictions on each part, by its name.
    """
    found = []
    for part, each in interpretations.items():
        for place, suggested in zip(*find_suspects(each.probabilities, each.labels), strict=True):
            label, item = int(each.labels[place]), int(each.ids[place])
            probabilities = each.probabilities[place]
            names = each.loader.dataset.paths[item], part, each.classes[label], each.classes[suggested]
            suspect = Suspect(*names, float(probabilities[label]), float(probabilities[suggested]))
            found.append((suspect, item))
    return sorted(found, key=lambda each: each[0].label_probability)


def write_suspects(folder: Path, name: str, interpretations: Mapping[str, Interpretation]) -> list[Suspect]:
    """Writes suspects.csv and suspects.html into a folder, and returns the suspects.

    `name` is the page's heading, and `interpretations` are the predictions on each part of a data set, by its name.
    """
    found = find(interpretations)
    suspects = [suspect for suspect, _ in found]
    write_rows(folder / CSV, [suspect._asdict() for suspect in suspects], Suspect._fields)
    images = {}
    for part, each in interpretations.items():
        ids = [item for suspect, item in found[:MAX_IMAGES] if suspect.part == part]
        for item, pixels in zip(ids, each.pixels(np.array(ids, np.int64)), strict=True):
            images[part, item] = thumbnail(pixels)
    pairs = Counter((suspect.label, suspect.suggested) for suspect in suspects).most_common()
    data = {
        "limits": LIMITS,
        "suspects": [{**suspect._asdict(), "file": linked(suspect.file)} for suspect in suspects],
        "images": [images[suspect.part, item] for suspect, item in found[:MAX_IMAGES]],
        "pairs": [(*pair, count) for pair, count in pairs],
    }
    counts = {part: len(each.labels) for part, each in interpretations.items()}
    write_page(folder / PAGE, "suspects.html.jinja", {"name": name, "data": data, "counts": counts})
    return suspects

"""`fastpets suspects`: finds images of a run whose labels may be wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from fastpets.errors import InvalidArgumentError, one_line, out_must_be_writable, warn
from fastpets.runs.files import check_run

if TYPE_CHECKING:
    from fastpets.analysis.interpretation import Interpretation

MAX_LISTED = 10
MAX_ERROR_RATE = 0.3  # of a model whose suspects are worth a look


@dataclass(frozen=True, kw_only=True)
class SuspectsConfig:
    """Find images whose labels may be wrong, by confident learning.

    Predicts the images of a run with its model, and writes suspects.csv and suspects.html, a page to browse them.
    """

    run: Positional[Path]
    """The run folder. One of `fastpets train --folds` has predictions for all images by models that were not trained
    on them."""
    part: Literal["all", "train", "valid"] = "all"
    """Which images to look at. The model has learned from the training images, so it finds fewer wrong labels there."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder of the two files. Default: the run folder."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def suspects(config: SuspectsConfig) -> int:
    """Writes the two files, and prints the suspects with the least probable labels."""
    check_run("run", config.run)
    import numpy as np

    from fastpets.analysis.suspects import CSV, PAGE, write_suspects
    from fastpets.runs.build import limit_threads
    from fastpets.runs.folder import check_writable

    folder = config.out or config.run
    check_writable(folder)
    limit_threads(None)
    found = _interpretations(config)
    error_rate = np.concatenate([each.predicted != each.labels for each in found.values()]).mean()
    if error_rate > MAX_ERROR_RATE:
        warn(
            f"the model is wrong on {error_rate:.0%} of these images, so most of the suspects are its own mistakes; "
            "train a better one first"
        )
    with out_must_be_writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        rows = write_suspects(folder, config.run.resolve().name, found)
    counts = " and ".join(f"{len(each.labels)} {name}" for name, each in found.items())
    print(f"{len(rows)} suspects among {counts} images: their labels may be wrong")
    for row in rows[:MAX_LISTED]:
        predicted = f"{row.suggested} ({row.suggested_probability:.0%})"
        print(one_line(f"  {row.file}: labelled {row.label}, predicted {predicted}"))
    if len(rows) > MAX_LISTED:
        print(f"  and {len(rows) - MAX_LISTED} more")
    print(f"table: {folder / CSV}\npage: {folder / PAGE}")
    return 0


def _interpretations(config: SuspectsConfig) -> dict[str, Interpretation]:
    """The predictions on each part of the run's images, by its name."""
    from fastpets.analysis.interpretation import Interpretation
    from fastpets.runs.files import FOLDS

    if (config.run / FOLDS).exists():
        if config.part != "all":
            raise InvalidArgumentError(
                f"part: {config.part!r}, but each image of a cross-validation is in both; leave it out"
            )
        return {"cross-validated": Interpretation.from_folds(config.run, config.device)}
    parts: dict[str, Literal["train", "valid"]] = {"training": "train", "validation": "valid"}
    return {
        name: Interpretation.from_run(config.run, config.device, part=part)
        for name, part in parts.items()
        if config.part in ("all", part)
    }


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["suspects", *sys.argv[1:]]))

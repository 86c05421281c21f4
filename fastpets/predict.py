"""`python -m fastpets.predict`: what a trained model takes images for, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import glob
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from fastpets.augment.preprocessing import MAX_PIXELS
from fastpets.command import run_command
from fastpets.errors import FastpetsError, one_line
from fastpets.utils.progress import track
from fastpets.utils.validation import check_range

if TYPE_CHECKING:
    import torch

    from fastpets.runs.saved_model import SavedModel


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predict the classes of images by the model that a training run left.

    The exit status is 1 if an image cannot be used; the others are predicted all the same.
    """

    run: Positional[Path]
    """The run's folder."""
    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="FILE|DIR|GLOB|-")]
    """Images, folders of them, patterns, or - for a list on standard input."""
    format: Literal["table", "csv", "json"] = "table"
    """What is printed."""
    top: int = 3
    """How many classes of each image, the most probable first."""
    batch_size: int = 64
    """Images that are predicted at a time."""
    threads: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read and decode. Default: the processors that this process may use."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_range("--top", self.top, 1, 100_000)
        check_range("--batch-size", self.batch_size, 1, 65536)
        if not self.sources:
            raise FastpetsError("no images named, expected files, folders, patterns, or - for standard input")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0, 1 if an image or all of it cannot be predicted, 130 after Ctrl-C."""
    return run_command("predict", PredictConfig, predict, arguments, lists_bad_files=True)


def predict(config: PredictConfig) -> int:
    """Prints the predictions in the order of the images, and on standard error what cannot be used."""
    from fastpets.runs.saved_model import load_run
    from fastpets.utils.device import resolve_device

    run = load_run(config.run, resolve_device(config.device))
    paths = list(images(config.sources))
    if not paths:
        raise FastpetsError(f"{', '.join(config.sources)}: no image there, expected .jpg, .png and the like")
    found, problems = probabilities(run, paths, config)
    top = min(config.top, len(run.classes))
    rows = []
    for path in paths:
        if path in found:
            values, labels = found[path].topk(top)
            names = [run.classes[label] for label in labels.tolist()]
            rows.append((path, list(zip(names, values.tolist(), strict=True))))
    sys.stdout.write(FORMATS[config.format](rows))
    for path, problem in problems.items():
        print(one_line(f"{path}: {problem}"), file=sys.stderr)
    return 1 if problems else 0


def images(sources: Sequence[str]) -> Iterator[str]:
    """The paths that are named. Raises FastpetsError for a folder without images."""
    from fastpets.data import storage
    from fastpets.data.sources import from_folder

    for source in sources:
        if source == "-":
            yield from (line for line in sys.stdin.read().splitlines() if line)
        elif storage.is_remote(source) or Path(source).is_file():
            yield source
        elif Path(source).is_dir():
            yield from from_folder(source, label_from="none").paths
        elif matches := sorted(glob.glob(source, recursive=True)):
            yield from matches
        else:
            yield source  # which is not there, and is said to be


def probabilities(
    run: SavedModel, paths: list[str], config: PredictConfig
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The probabilities (C,) by path of the images that can be used, and what is wrong with each of the others."""
    from fastpets.data.sources import as_dataset
    from fastpets.utils.system import default_num_workers

    dataset = as_dataset(paths, label_from="none").scanned(config.threads or default_num_workers())
    assert dataset.headers is not None
    headers = dataset.headers.limited(MAX_PIXELS)
    found: dict[str, torch.Tensor] = {}
    problems = dict(headers.problems)
    if headers.usable.any():
        usable = dataset.select(np.flatnonzero(headers.usable))
        settings = {"batch_size": config.batch_size, "num_workers": config.threads, "on_bad_file": "skip"}
        loader = run.loader(usable, **settings)
        for batch in track(loader, "predicting", len(loader)):
            names = [usable.paths[i] for i in batch.ids.tolist()]
            found |= zip(names, run.probabilities(batch.images).cpu(), strict=True)
        problems |= loader.bad_files
    return found, problems


Rows = list[tuple[str, list[tuple[str, float]]]]


def as_table(rows: Rows) -> str:
    width = max((len(one_line(path)) for path, _ in rows), default=0)
    return "".join(
        f"{one_line(path):<{width}}  {', '.join(f'{name} {value:.3f}' for name, value in found)}\n"
        for path, found in rows
    )


def as_csv(rows: Rows) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    top = len(rows[0][1]) if rows else 0
    writer.writerow(["file", *(f"{name}_{n}" for n in range(1, top + 1) for name in ("class", "probability"))])
    for path, found in rows:
        writer.writerow([path, *(cell for name, value in found for cell in (name, f"{value:.6f}"))])
    return file.getvalue()


def as_json(rows: Rows) -> str:
    return json.dumps([{"file": path, "classes": dict(found)} for path, found in rows], indent=1) + "\n"


FORMATS = {"table": as_table, "csv": as_csv, "json": as_json}


if __name__ == "__main__":
    sys.exit(main())

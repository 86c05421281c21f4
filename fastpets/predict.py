"""`fastpets predict`: predicts the classes of images, as a table, CSV or JSON."""

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

from fastpets.errors import FastpetsError, InvalidArgumentError, one_line
from fastpets.utils.progress import track
from fastpets.utils.validation import check_range

if TYPE_CHECKING:
    import torch

    from fastpets.runs.saved_model import SavedModel


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predict the classes of images with the model of a run.

    The exit status is 1 if an image cannot be used; the other images are predicted nevertheless.
    """

    run: Positional[Path]
    """The run folder."""
    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="FILE|DIR|GLOB|-")]
    """Images, folders of images, glob patterns, or - for a list of images on standard input."""
    format: Literal["table", "csv", "json"] = "table"
    """Format of the output."""
    top: int = 3
    """Classes to print for each image, the most probable first."""
    batch_size: int = 64
    """Images per batch."""
    num_workers: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read and decode. Default: the processors that this process may use."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_range("top", self.top, 1, 100_000)
        check_range("batch_size", self.batch_size, 1, 65536)
        if self.num_workers is not None:
            check_range("num_workers", self.num_workers, 1, 1024)
        if not self.sources:
            raise InvalidArgumentError("no images named, expected files, folders, patterns, or - for standard input")


def predict(config: PredictConfig) -> int:
    """Prints the predictions in the order of the images, and on standard error the images that cannot be used."""
    from fastpets.runs.saved_model import load_run

    run = load_run(config.run, config.device)
    paths = list(image_paths(config.sources))
    if not paths:
        raise FastpetsError(
            f"{', '.join(config.sources)}: no images, expected files with a suffix such as .jpg or .png"
        )
    predicted, problems = probabilities(run, paths, config.batch_size, config.num_workers)
    top = min(config.top, len(run.classes))
    rows = []
    for path in paths:
        if path in predicted:
            values, labels = predicted[path].topk(top)
            names = [run.classes[label] for label in labels.tolist()]
            rows.append((path, list(zip(names, values.tolist(), strict=True))))
    sys.stdout.write(FORMATS[config.format](rows))
    for path, problem in problems.items():
        print(one_line(f"{path}: {problem}"), file=sys.stderr)
    return 1 if problems else 0


def image_paths(sources: Sequence[str]) -> Iterator[str]:
    """Expands files, folders, patterns and standard input to paths. Raises FastpetsError for an empty folder."""
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
            yield source  # reported as missing when it is read


def probabilities(
    run: SavedModel, paths: list[str], batch_size: int, num_workers: int | None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Probabilities (C,) by path, and what is wrong with each image that cannot be used, by path."""
    from fastpets.data.sources import as_dataset
    from fastpets.utils.system import resolve_num_workers

    dataset = as_dataset(paths, label_from="none").scanned(resolve_num_workers(num_workers))
    assert dataset.headers is not None
    headers = dataset.headers.limited(run.preprocessing.max_pixels)
    predicted: dict[str, torch.Tensor] = {}
    problems = dict(headers.problems)
    if headers.usable.any():
        usable = dataset.select(np.flatnonzero(headers.usable))
        loader = run.loader(usable, batch_size=batch_size, num_workers=num_workers, on_bad_file="skip")
        for batch in track(loader, "predicting", len(loader)):
            names = [usable.paths[i] for i in batch.ids.tolist()]
            predicted |= zip(names, run.probabilities(batch.images).cpu(), strict=True)
        problems |= loader.bad_files
    return predicted, problems


Rows = list[tuple[str, list[tuple[str, float]]]]  # path, and (class, probability) with the highest first


def as_table(rows: Rows) -> str:
    width = max((len(one_line(path)) for path, _ in rows), default=0)
    return "".join(
        f"{one_line(path):<{width}}  {', '.join(f'{name} {value:.3f}' for name, value in classes)}\n"
        for path, classes in rows
    )


def as_csv(rows: Rows) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    top = len(rows[0][1]) if rows else 0
    writer.writerow(["file", *(f"{name}_{n}" for n in range(1, top + 1) for name in ("class", "probability"))])
    for path, classes in rows:
        writer.writerow([path, *(cell for name, value in classes for cell in (name, f"{value:.6f}"))])
    return file.getvalue()


def as_json(rows: Rows) -> str:
    return json.dumps([{"file": path, "classes": dict(classes)} for path, classes in rows], indent=1) + "\n"


FORMATS = {"table": as_table, "csv": as_csv, "json": as_json}


if __name__ == "__main__":
    from fastpets.__main__ import main

    sys.exit(main(["predict", *sys.argv[1:]]))

"""`fastpets predict`: predicts the classes of images, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fastpets.errors import FastpetsError, InvalidArgumentError, one_line
from fastpets.flags import Positional, arg
from fastpets.utils.progress import track
from fastpets.utils.validation import MAX_BATCH_SIZE, MAX_WORKERS, check_range

if TYPE_CHECKING:
    import torch

    from fastpets.runs.saved_model import SavedModel


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predict the classes of images with the model of a run.

    If an image cannot be used, the other images are still predicted, and the exit status is 1.
    """

    run: Positional[Path]
    """The run folder."""
    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="FILE|DIR|GLOB|-")]
    """Images, folders of images, glob patterns, or - to read paths from standard input, one per line."""
    null: Annotated[bool, arg(aliases=("-0",))] = False
    """The paths on standard input end in NUL, not in a line break, as those of `find -print0` do."""
    format: Literal["table", "csv", "json"] = "table"
    """Format of the output. A CSV has names as they are: load it into a spreadsheet as text, since a name that begins
    with =, +, - or @ would be a formula."""
    top: int = 3
    """Number of classes to print for each image, the most probable first."""
    batch_size: int = 64
    """Images per batch."""
    num_workers: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read and decode. Default: the processors that this process may use, at most 16."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_range("top", self.top, 1, 100_000)
        check_range("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        if self.num_workers is not None:
            check_range("num_workers", self.num_workers, 0, MAX_WORKERS)
        if not self.sources:
            raise InvalidArgumentError("no images named, expected files, folders, patterns, or - for standard input")


def predict(config: PredictConfig) -> int:
    """Prints the predictions in the order of the images, and on standard error the images that cannot be used."""
    from fastpets.runs.build import limit_threads
    from fastpets.runs.saved_model import load_run

    saved = load_run(config.run, config.device)
    limit_threads(config.num_workers)
    paths = list(image_paths(config.sources, "\0" if config.null else "\n"))
    if not paths:
        raise FastpetsError("standard input: empty, expected the path of an image on each line")
    predicted, problems = probabilities(saved, paths, config.batch_size, config.num_workers)
    top = min(config.top, len(saved.classes))
    rows = []
    for path in paths:
        if path in predicted:
            values, labels = predicted[path].topk(top)
            names = [saved.classes[label] for label in labels.tolist()]
            rows.append((path, list(zip(names, values.tolist(), strict=True))))
    if config.format == "csv" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # keeps bytes of names that are not UTF-8
    sys.stdout.write(FORMATS[config.format](rows))
    for path, problem in problems.items():
        print(one_line(f"{path}: {problem}"), file=sys.stderr)
    return 1 if problems else 0


def image_paths(sources: Sequence[str], separator: str = "\n") -> Iterator[str]:
    """Yields the paths of the images in files, folders, glob patterns and standard input, where `separator` ends each.

    Raises FastpetsError for a folder without images.
    """
    from fastpets.data import storage

    for source in sources:
        if source == "-":
            text = os.fsdecode(sys.stdin.buffer.read())
            if "\0" in text and separator != "\0":
                raise FastpetsError("standard input: a NUL, expected a path on each line, or null=True")
            yield from filter(None, text.split(separator))
        elif storage.is_remote(source):
            yield source
        else:
            matches = [source] if Path(source).exists() else sorted(glob.glob(source, recursive=True))
            found = (path for match in matches for path in _files_of(match))
            yield from dict.fromkeys(found)  # ** matches a folder and also its files
            if not matches:
                yield source  # reported as missing when it is read


def _files_of(path: str) -> list[str]:
    """The images in a folder, or the file itself."""
    from fastpets.data.sources import from_folder

    return list(from_folder(path, label_from="none").paths) if Path(path).is_dir() else [path]


def probabilities(
    saved: SavedModel, paths: list[str], batch_size: int, num_workers: int | None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Probabilities (C,) by path, and what is wrong with each image that cannot be used, by path."""
    from fastpets.data.sources import as_dataset
    from fastpets.utils.system import resolve_num_workers

    dataset = as_dataset(paths, label_from="none").scanned(resolve_num_workers(num_workers))
    usable, problems = dataset.usable(saved.preprocessing.max_pixels)
    predicted: dict[str, torch.Tensor] = {}
    if len(usable):
        loader = saved.loader(usable, batch_size=batch_size, num_workers=num_workers, on_bad_file="skip")
        for batch in track(loader, "predicting", len(loader)):
            names = [usable.paths[i] for i in batch.ids.tolist()]
            predicted |= zip(names, saved.probabilities(batch.images).cpu(), strict=True)
        problems |= loader.bad_files
    return predicted, problems


Rows = list[tuple[str, list[tuple[str, float]]]]  # paths, each with (class, probability), the highest first


def as_table(rows: Rows) -> str:
    width = max((len(one_line(path)) for path, _ in rows), default=0)
    return "".join(
        f"{one_line(path):<{width}}  {', '.join(f'{one_line(name)} {value:.3f}' for name, value in classes)}\n"
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
    from fastpets.cli import main

    sys.exit(main(["predict", *sys.argv[1:]]))

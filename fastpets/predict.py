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
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from fastpets.errors import FastpetsError, InvalidArgumentError, one_line
from fastpets.runs.files import check_run
from fastpets.utils.validation import MAX_BATCH_SIZE, MAX_TOP, MAX_WORKERS, check_range


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predict the classes of images with the model of a run.

    If an image cannot be used, the other images are still predicted, and the exit status is 1.
    """

    run: Positional[Path]
    """The run folder."""
    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="FILE|DIR|GLOB|-")]
    """Images, folders of images, glob patterns, or - to read paths from standard input, one per line."""
    null: Annotated[bool, arg(aliases=("-0",)), FlagCreatePairsOff] = False
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
        check_range("top", self.top, 1, MAX_TOP)
        check_range("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        if self.num_workers is not None:
            check_range("num_workers", self.num_workers, 0, MAX_WORKERS)
        if not self.sources:
            raise InvalidArgumentError("no images named, expected files, folders, patterns, or - for standard input")


def predict(config: PredictConfig) -> int:
    """Prints the predictions in the order of the images, and on standard error the images that cannot be used."""
    check_run("run", config.run)
    from fastpets.runs.build import limit_threads
    from fastpets.runs.predictor import load

    predictor = load(config.run, config.device)
    limit_threads(config.num_workers)
    paths = list(image_paths(config.sources, "\0" if config.null else "\n"))
    if not paths:
        raise FastpetsError("standard input: empty, expected the path of an image on each line")
    found, problems = predictor.probabilities_of(paths, batch_size=config.batch_size, num_workers=config.num_workers)
    rows = [(path, predictor.most_probable(found[path], config.top)) for path in paths if path in found]
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

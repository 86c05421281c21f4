"""`fastpets check`: decodes all images as training does, and lists those that cannot be used."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from fastpets.augment.preprocessing import LIMITS, MAX_PIXELS
from fastpets.errors import counted, one_line, out_must_be_writable
from fastpets.runs.files import BAD_FILES, write_bad_files
from fastpets.utils.progress import track
from fastpets.utils.validation import MAX_WORKERS, check_range

if TYPE_CHECKING:
    from fastpets.data.dataset import ImageDataset

DEFAULT_OUT = Path(BAD_FILES)
# If a batch does not decode, each of its images is decoded by itself, which takes 5 ms per image.
BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Decode every image of a data set, as training does, and list those that cannot be used.

    The exit status is 1 if there are any, else 0.
    """

    source: Annotated[Positional[str], arg(metavar="DIR")]
    """Folder of images (s3:// too), tar shards, or a CSV."""
    out: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """CSV to write, with the columns file and problem. Default: bad_files.csv, if there are bad files."""
    num_workers: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read and decode. Default: the processors that this process may use, at most 16."""
    max_pixels: Annotated[int, arg(metavar="N")] = MAX_PIXELS
    """Largest image to accept, in pixels."""

    def __post_init__(self) -> None:
        if self.num_workers is not None:
            check_range("num_workers", self.num_workers, 0, MAX_WORKERS)
        check_range("max_pixels", self.max_pixels, *LIMITS["max_pixels"])


def check(config: CheckConfig) -> int:
    """Decodes all images, prints and saves the list of bad files, and returns the exit status."""
    from fastpets.analysis.data_quality import narrow_ranges
    from fastpets.data.sources import as_dataset
    from fastpets.utils.system import resolve_num_workers

    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # bad files are listed below
    dataset = as_dataset(config.source, label_from="none").scanned(resolve_num_workers(config.num_workers))
    num_good, problems = decode_all(dataset, config.num_workers, config.max_pixels)
    for path, problem in problems.items():
        print(one_line(f"{path}: {problem}"))
    for path, problem in narrow_ranges(dataset).items():
        print(one_line(f"warning: {path}: {problem}"))
    if dataset.ignored_files:
        print(f"ignored {counted(len(dataset.ignored_files), 'file')} without an image's suffix")
    print(f"{counted(len(dataset), 'file')}: {num_good} good, {len(problems)} bad")
    if problems or config.out:
        save(config.out or DEFAULT_OUT, problems)
    return 1 if problems else 0


def decode_all(dataset: ImageDataset, num_workers: int | None, max_pixels: int) -> tuple[int, dict[str, str]]:
    """Decodes every image. Returns the number of good ones, and what is wrong with each bad one by path, sorted."""
    from fastpets.loading.loader import Loader
    from fastpets.utils.system import resolve_num_workers

    usable, problems = dataset.scanned(resolve_num_workers(num_workers)).usable(max_pixels)
    num_good = 0
    if len(usable):
        loader = Loader(
            usable,
            size=8,
            batch_size=BATCH_SIZE,
            device="cpu",
            num_workers=num_workers,
            on_bad_file="skip",
            max_pixels=max_pixels,
        )
        for batch in track(loader, "decoding", len(loader)):
            num_good += len(batch.labels)
        problems |= loader.bad_files
    return num_good, dict(sorted(problems.items()))


def save(path: Path, problems: dict[str, str]) -> None:
    """Writes the list of bad files and prints where it is."""
    with out_must_be_writable(path):
        write_bad_files(path, problems)
    print(f"list of bad files: {path}" if problems else f"empty list, since no file is bad: {path}")


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["check", *sys.argv[1:]]))

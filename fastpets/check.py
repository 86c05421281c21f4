"""`python -m fastpets.check`: which of a folder's images cannot be used, by decoding all of them as training does."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from tyro.conf import Positional, arg

from fastpets.augment.preprocessing import MAX_PIXELS
from fastpets.command import run_command
from fastpets.errors import FastpetsError, one_line
from fastpets.utils.progress import track

if TYPE_CHECKING:
    from fastpets.data.dataset import ImageDataset

DEFAULT_OUT = Path("bad_files.csv")
BATCH_SIZE = 32  # where one does not decode, each image of its batch is tried alone, which takes 5 ms apiece


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Decode every image of a folder, as training does, and list those that cannot be used.

    The exit status is 1 if there are any, and 0 if all of them are good.
    """

    source: Annotated[Positional[str], arg(metavar="DIR")]
    """Folder of images (s3:// too), tar shards, or a CSV."""
    out: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """Where the list goes, with the columns file and problem. Default: bad_files.csv, if there is a bad file."""
    threads: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read and decode. Default: the processors that this process may use."""
    max_pixels: Annotated[int, arg(metavar="N")] = MAX_PIXELS
    """Pixels that an image may have; a larger one is a bad file."""

    def __post_init__(self) -> None:
        for name, value, most in (("threads", self.threads, 1024), ("max-pixels", self.max_pixels, 2**31)):
            if value is not None and not 1 <= value <= most:
                raise FastpetsError(f"--{name}: {value}, expected a value from 1 to {most}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0 if all files are good, 1 if one is bad or it cannot be done, 130 after Ctrl-C."""
    return run_command(
        "check", CheckConfig, check, arguments, "stopped before all files were checked", lists_bad_files=True
    )


def check(config: CheckConfig) -> int:
    """Decodes all images, prints and saves the list of the bad ones, and returns the exit status."""
    from fastpets.data.sources import as_dataset

    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its complaints; what is wrong, we say
    dataset = as_dataset(config.source, label_from="none")
    with muted_decoders():
        num_good, problems = decode_all(dataset, config)
    for path, problem in problems.items():
        print(one_line(f"{path}: {problem}"))
    if dataset.left_out:
        print(f"no images by their names, left out: {len(dataset.left_out)}")
    print(f"{len(dataset)} files: {num_good} good, {len(problems)} bad")
    if problems or config.out:
        save(config.out or DEFAULT_OUT, problems)
    return 1 if problems else 0


@contextlib.contextmanager
def muted_decoders() -> Iterator[None]:
    """Drops what DALI's decoders write to standard error, two lines a bad JPEG; what Python writes there stays."""
    with open(os.dup(2), "w") as kept, open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(kept):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept.fileno(), 2)


def decode_all(dataset: ImageDataset, config: CheckConfig) -> tuple[int, dict[str, str]]:
    """How many images were delivered, and what is wrong with each of the others, by its path and sorted."""
    from fastpets.loading.loader import Loader
    from fastpets.utils.system import default_num_workers

    dataset = dataset.scanned(config.threads or default_num_workers())
    assert dataset.headers is not None
    headers = dataset.headers.limited(config.max_pixels)
    num_good, problems = 0, dict(headers.problems)
    if headers.usable.any():
        loader = Loader(
            dataset.select(np.flatnonzero(headers.usable)),
            size=8,
            batch_size=BATCH_SIZE,
            device="cpu",
            num_workers=config.threads,
            on_bad_file="skip",
            max_pixels=config.max_pixels,
        )
        for batch in track(loader, "decoding", len(loader)):
            num_good += len(batch.labels)
        problems |= loader.bad_files
    return num_good, dict(sorted(problems.items()))


def save(path: Path, problems: dict[str, str]) -> None:
    """Writes the list, whole or not at all, and says where it is."""
    from fastpets.runs.folder import write_bad_files
    from fastpets.utils.atomic import write_atomically

    try:
        write_atomically(path, lambda staging: write_bad_files(staging, problems))
    except OSError as error:
        raise FastpetsError(f"--out {path}: {error.strerror}, expected a file in a folder that is there") from None
    print(f"{path} lists the bad files" if problems else f"{path} has no line, since no file is bad")


if __name__ == "__main__":
    sys.exit(main())

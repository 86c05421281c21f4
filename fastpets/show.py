"""`python -m fastpets.show`: what training will see, a batch of it and one image under nine draws, as PNG files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fastpets.command import run_command
from fastpets.errors import FastpetsError
from fastpets.runs.config import TrainConfig

NUM_DRAWS = 9


@dataclass(frozen=True, kw_only=True)
class ShowConfig(TrainConfig):
    """Draw what training will see: batch.png, a batch with its classes, and draws.png, one image under nine draws.

    Takes the flags of fastpets.train.
    """

    data: Annotated[Positional[str | None], arg(metavar="DIR")] = None
    """Folder of images (s3:// too), tar shards, a CSV, or `sample`, a small drawn set. Default: Oxford-IIIT Pet."""
    images: int = 16
    """How many of the batch are drawn."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for the two files. Default: the current one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.images <= 1024:
            raise FastpetsError(f"--images: {self.images}, expected a value from 1 to 1024")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0 when drawn, 1 if it cannot be done (one line says why), 130 after Ctrl-C."""
    return run_command("show", ShowConfig, show, arguments)


def show(config: ShowConfig) -> int:
    """Writes the two files, and says where they are."""
    from fastpets.data.storage import name_of
    from fastpets.loading.display import to_pixels
    from fastpets.runs.build import build_datasets, build_loaders
    from fastpets.utils.figures import image_grid, shorten

    folder = config.out or Path()
    if not folder.is_dir():
        raise FastpetsError(f"--out {folder}: no such folder, expected one for the files")
    dataset, _ = build_datasets(config)
    train, _ = build_loaders(config, dataset, dataset, device="cpu")
    train.show_batch(config.images).save(folder / "batch.png")
    first = int(train.peek().ids[0])
    draws = train.like(dataset, sampler=[first] * NUM_DRAWS, batch_size=NUM_DRAWS, drop_last=False)
    name = shorten(name_of(dataset.paths[first]), 60)
    titles = [""] * NUM_DRAWS
    pixels = to_pixels(draws.peek().images, draws.preprocessing)
    image_grid(pixels, titles, f"{name}: {NUM_DRAWS} draws").save(folder / "draws.png")
    print(f"{folder / 'batch.png'} and {folder / 'draws.png'} show what training gets, {len(dataset)} images in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`fastpets show`: draws a batch as the model sees it, and one image under nine random augmentations."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fastpets.errors import InvalidArgumentError
from fastpets.runs.config import TrainConfig
from fastpets.utils.validation import check_range

NUM_AUGMENTED = 9


@dataclass(frozen=True, kw_only=True)
class ShowConfig(TrainConfig):
    """Draw training images as the model sees them.

    Writes batch.png, a batch with its classes, and augmented.png, one image under nine random augmentations. Takes the
    flags of `fastpets train`.
    """

    data: Annotated[Positional[str | None], arg(metavar="DIR")] = None
    """Folder of images (s3:// too), tar shards, a CSV, or `sample`, a small drawn set. Default: Oxford-IIIT Pet."""
    num_images: int = 16
    """Images of the batch to draw."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for the two files. Default: the current one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("num_images", self.num_images, 1, 1024)


def show(config: ShowConfig) -> int:
    """Writes the two files and prints where they are."""
    from fastpets.data.storage import name_of
    from fastpets.loading.display import to_pixels
    from fastpets.runs.build import build_datasets, build_loaders
    from fastpets.utils.figures import image_grid, shorten

    folder = config.out or Path()
    if not folder.is_dir():
        raise InvalidArgumentError(f"out: {folder}: no such folder, expected an existing one")
    dataset, _ = build_datasets(config)
    train, _ = build_loaders(config, dataset, dataset, config.preprocessing(), "cpu")
    train.show_batch(config.num_images).save(folder / "batch.png")
    first = int(train.peek().ids[0])
    augmented = train.like(dataset, sampler=[first] * NUM_AUGMENTED, batch_size=NUM_AUGMENTED, drop_last=False)
    pixels = to_pixels(augmented.peek().images, augmented.preprocessing)
    heading = f"{shorten(name_of(dataset.paths[first]), 60)}: {NUM_AUGMENTED} random augmentations"
    image_grid(pixels, [""] * NUM_AUGMENTED, heading).save(folder / "augmented.png")
    print(f"{len(dataset)} training images; drawn: {folder / 'batch.png'} and {folder / 'augmented.png'}")
    return 0


if __name__ == "__main__":
    from fastpets.__main__ import main

    sys.exit(main(["show", *sys.argv[1:]]))

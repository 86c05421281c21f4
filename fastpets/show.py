"""`fastpets show`: draws training images as the model sees them, and one image under nine random augmentations."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from fastpets.errors import InvalidArgumentError, counted, out_must_be_writable
from fastpets.runs.config import DataConfig, SamplerFlags
from fastpets.utils.validation import check_range

NUM_AUGMENTED = 9
MAX_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class ShowConfig(DataConfig, SamplerFlags):
    """Draw training images as the model sees them.

    Writes batch.png, a batch with its classes, and augmented.png, one image under nine random augmentations.
    """

    num_images: int = 16
    """Number of images in batch.png."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for the two files. Default: the current one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("num_images", self.num_images, 1, MAX_IMAGES)


def show(config: ShowConfig) -> int:
    """Writes the images and prints where they are."""
    from fastpets.data.storage import name_of
    from fastpets.loading.display import batch_grid, to_pixels
    from fastpets.loading.loader import Loader
    from fastpets.runs.build import build_datasets
    from fastpets.utils.figures import image_grid, shorten

    folder = config.out or Path()
    if not folder.is_dir():
        raise InvalidArgumentError(f"out: {folder}: no such folder, expected an existing one")
    dataset, _ = build_datasets(config)
    num_usable = len(dataset.usable(config.max_pixels)[0])
    settings = config.preprocessing().to_dict() | {"augment": config.augment, "seed": config.seed, "device": "cpu"}
    settings |= {"num_workers": config.num_workers, "on_bad_file": config.on_bad_file}
    batch_size = max(1, min(config.num_images, num_usable))
    loader = Loader(dataset, batch_size, shuffle=True, sampler=config.sampler, **settings)
    batch = loader.peek()
    grids = {"batch.png": batch_grid(batch, dataset.classes, loader.preprocessing, config.num_images)}
    if loader.augment is not None:
        first = int(batch.ids[0])
        augmented = loader.like(dataset, sampler=[first] * NUM_AUGMENTED, batch_size=NUM_AUGMENTED)
        pixels = to_pixels(augmented.peek().images, augmented.preprocessing)
        heading = f"{shorten(name_of(dataset.paths[first]), 60)}: {NUM_AUGMENTED} random augmentations"
        grids["augmented.png"] = image_grid(pixels, [""] * NUM_AUGMENTED, heading)
    with out_must_be_writable(folder):
        for name, grid in grids.items():
            grid.save(folder / name)
    print(f"{counted(num_usable, 'training image')}; written: {' and '.join(str(folder / name) for name in grids)}")
    return 0


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["show", *sys.argv[1:]]))

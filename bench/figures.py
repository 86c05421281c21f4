"""Draws the figures of the documentation.

python -m bench.figures                          # the committed ones, from the built-in sample dataset
FASTPETS_PETS=... python -m bench.figures pets/  # the same from photographs, into the folder pets/
"""

import os
import sys
from pathlib import Path

from PIL import Image

import fastpets
from fastpets.data.sample import sample_folder

SIDE = 224


def main() -> None:
    pets = os.environ.get("FASTPETS_PETS") if len(sys.argv) > 1 else None
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    source = pets or sample_folder()
    train, valid = fastpets.loaders(source, size=96 if pets is None else SIDE, batch_size=32)
    train.show_batch(9).convert("RGB").save(folder / "batch.jpg", quality=75)
    striped = next((path for path in train.dataset.paths if "striped" in path), train.dataset.paths[0])
    with Image.open(striped) as image:
        fastpets.interpolation_figure(image).save(folder / "interpolation.png")
    model = fastpets.create_model("resnet18", len(train.classes), "none")
    fastpets.Learner(train, valid, model).lr_find().plot(folder / "rates.png")


if __name__ == "__main__":
    main()

"""Draws the figures of the documentation.

python -m bench.figures                          # the committed ones, from the built-in sample dataset
FASTPETS_PETS=... python -m bench.figures pets/  # the same from photographs, into the folder pets/
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import fastpets
from bench.rendering import rendered
from fastpets.augment import geometry
from fastpets.data.sample import sample_folder
from fastpets.utils.figures import image_grid

SIDE = 224


def interpolation(image: Image.Image) -> Image.Image:
    """An image rotated, zoomed and warped in one interpolation, and in four, one after another."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
    height, width = pixels.shape[:2]
    image_from_canvas = np.array(geometry.image_from_canvas(height, width, (SIDE, SIDE), geometry.CROP, 0.5, 0.5))
    rotation = np.array(geometry.rotation(30))
    zoom = np.array(geometry.zoom(1.2, 0.5, 0.5))
    warp = np.array(geometry.perspective(-0.2, 0.2))
    canvas_from_output = np.array(geometry.crop_from_output((SIDE, SIDE)))

    def warped(source: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
        return rendered(source, matrix, SIDE, supersample=1)

    at_once = warped(pixels, image_from_canvas @ warp @ rotation @ zoom @ canvas_from_output)
    step_by_step = warped(pixels, image_from_canvas @ canvas_from_output)
    output_from_canvas = np.linalg.inv(canvas_from_output)
    for matrix in (warp, rotation, zoom):
        step_by_step = warped(step_by_step, output_from_canvas @ matrix @ canvas_from_output)
    return image_grid([at_once.numpy(), step_by_step.numpy()], ["one interpolation", "one after another"])


def main() -> None:
    pets = os.environ.get("FASTPETS_PETS") if len(sys.argv) > 1 else None
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    source = pets or sample_folder()
    train, valid = fastpets.loaders(source, size=96 if pets is None else SIDE, batch_size=32)
    train.show_batch(9).convert("RGB").save(folder / "batch.jpg", quality=75)
    striped = next((path for path in train.dataset.paths if "striped" in path), train.dataset.paths[0])
    with Image.open(striped) as image:
        interpolation(image).save(folder / "interpolation.png")
    model = fastpets.create_model("resnet18", len(train.classes), "none")
    fastpets.Learner(train, valid, model).lr_find().plot(folder / "rates.png")


if __name__ == "__main__":
    main()

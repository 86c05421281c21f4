"""Images for people: batches as the model gets them, in grids with titles."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader

CELL_INCHES, DPI = 2.0, 120
TITLE_LETTERS = 24


def visible(loader: Loader, images: torch.Tensor) -> np.ndarray:
    """A loader's images as 8-bit pixels (B, H, W, 3), freed of the normalisation."""
    pixels = images if loader.preprocessing.layout == "NHWC" else images.permute(0, 2, 3, 1)
    if loader.preprocessing.output == "uint8":
        return pixels.cpu().numpy()
    mean, std = (
        torch.tensor(values, device=images.device) for values in (loader.preprocessing.mean, loader.preprocessing.std)
    )
    return ((pixels.float() * std + mean) * 255).round().clamp(0, 255).byte().cpu().numpy()


def batch_grid(loader: Loader, num_images: int) -> Image.Image:
    """The first images of a loader's next batch, under the names of their classes; none is lost by it."""
    images, labels = loader.peek()
    names = [loader.classes[label] if label >= 0 else "" for label in labels[:num_images].tolist()]
    return grid(visible(loader, images[:num_images]), names)


def grid(images: Sequence[np.ndarray] | np.ndarray, titles: Sequence[str], heading: str = "") -> Image.Image:
    """Images (H, W, 3) uint8 beside and below each other, each under its title, which may have several lines."""
    from matplotlib.figure import Figure

    columns = max(1, math.ceil(math.sqrt(len(images))))
    rows = max(1, -(-len(images) // columns))
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    figure = Figure(figsize=(columns * CELL_INCHES, rows * (CELL_INCHES + 0.16 * lines)), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in all_axes:
        axes.axis("off")
    for axes, image, title in zip(all_axes, images, titles, strict=False):
        axes.imshow(image)
        axes.set_title("\n".join(shortened(line) for line in title.split("\n")), fontsize=8, parse_math=False)
    if heading:
        figure.suptitle(heading, fontsize=9, parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png")
    return Image.open(file)


def shortened(text: str, most: int = TITLE_LETTERS) -> str:
    """The text, or its begin and end if it has more letters."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"

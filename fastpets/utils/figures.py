"""Figures by matplotlib: plots for a file or a notebook, and grids of images with titles."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from fastpets.errors import one_line

File = str | Path | IO[bytes] | None  # to write a PNG to; None: pyplot's current figure
FIGURE_INCHES, FIGURE_DPI = (7, 4.2), 150
CELL_INCHES, GRID_DPI = 2.0, 120
NAME_LENGTH = 40  # characters of a class name in plots and pages, before the middle is left out
MAX_TITLE_LENGTH = 48  # characters per line: two names of 20, or one of 40 and a number
CHARACTER_INCHES = 0.067  # width of a title's character, at most of usual text


def new_figure(file: File) -> tuple[Any, Any]:
    """Creates a figure and its axes. Without a file pyplot creates them, so that notebooks show the figure."""
    if file is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=FIGURE_INCHES, layout="constrained")
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_INCHES, layout="constrained")
    return figure, figure.add_subplot()


def finish_figure(figure: Any, file: File) -> None:
    """Saves the figure as PNG if `file` is given."""
    if file is not None:
        figure.savefig(file, dpi=FIGURE_DPI, format="png")


def image_grid(images: Sequence[np.ndarray] | np.ndarray, titles: Sequence[str], heading: str = "") -> Image.Image:
    """Draws images (H, W, 3) uint8 in a grid, each below its title. Titles may have several lines."""
    from matplotlib.figure import Figure

    columns = max(1, math.ceil(math.sqrt(len(images))))
    rows = max(1, -(-len(images) // columns))
    titles = ["\n".join(shorten(line) for line in title.split("\n")) for title in titles]
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    longest = max((len(line) for title in titles for line in title.split("\n")), default=0)
    width = max(CELL_INCHES, longest * CHARACTER_INCHES + 0.1)
    figure = Figure(figsize=(columns * width, rows * (CELL_INCHES + 0.16 * lines)), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in all_axes:
        axes.axis("off")
    for axes, image, title in zip(all_axes[: len(images)], images, titles, strict=True):
        axes.imshow(image)
        axes.set_title(title, fontsize=8, parse_math=False)
    if heading:
        figure.suptitle(heading, fontsize=9, parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, dpi=GRID_DPI, format="png")
    return Image.open(file)


def shorten(text: str, max_length: int = MAX_TITLE_LENGTH) -> str:
    """Replaces the middle of a text of more than `max_length` characters by an ellipsis.

    Characters that a font cannot show, such as bytes of file names that are not UTF-8, are escaped.
    """
    text = one_line(text)
    half = (max_length - 1) // 2
    return text if len(text) <= max_length else f"{text[: max_length - 1 - half]}…{text[-half:]}"

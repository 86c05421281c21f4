"""Plots of a model's predictions, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastpets.utils.figures import NAME_LENGTH, finish_figure, new_figure, shorten

MAX_NAMED_CLASSES = 150  # beyond which a plot with names in the same size would be too large
INCHES_PER_CLASS = 0.22
MIN_BIN_IMAGES = 5  # of calibration; the accuracy of fewer images is noise
DARK = 0.179  # relative luminance below which white text has more contrast than black, at least 4.5


def plot_confusion_matrix(matrix: np.ndarray, classes: Sequence[str], file: str | Path | None = None) -> None:
    """Plots counts (C, C), actual by predicted class, shaded by their share of the actual class.

    Correct predictions are blue, mistakes are red. The type has one size: the figure grows with the classes, up to
    MAX_NAMED_CLASSES; with more classes, it has no names and no counts.
    """
    num_classes = len(classes)
    from matplotlib import colormaps

    figure, axes = new_figure(file)
    is_named = num_classes <= MAX_NAMED_CLASSES
    names = [shorten(name, NAME_LENGTH) for name in classes] if is_named else []
    margin = 1.0 + 0.075 * max(map(len, names), default=0)
    side = max(2.5, INCHES_PER_CLASS * num_classes) + margin if is_named else 16.0
    figure.set_size_inches(side, side)
    shares, correct = matrix / np.maximum(matrix.sum(1, keepdims=True), 1), np.eye(num_classes, dtype=bool)
    colours = np.ones((*matrix.shape, 4))
    for cmap, shown in (("Reds", ~correct & (matrix > 0)), ("Blues", correct & (matrix > 0))):
        colours[shown] = colormaps[cmap](0.15 + 0.85 * shares[shown])
    axes.imshow(colours)
    axes.set(xlabel="predicted", ylabel="actual", xticks=[], yticks=[])
    if is_named:
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(num_classes), names, fontsize=8, parse_math=False)
        for i, j in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if luminance(colours[i, j, :3]) < DARK else "black"
            axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=8, color=colour)
    finish_figure(figure, file)


def plot_calibration(
    confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray, error: float, file: str | Path | None = None
) -> None:
    """Plots the reliability diagram: accuracy over confidence, for equal bins of confidence (n,).

    `confidence` and `accuracy` (n,) are means over the `counts` (n,) images of each bin, NaN in empty ones; `error` is
    the expected calibration error. Points of fewer than MIN_BIN_IMAGES images are hollow and are not joined.
    """
    figure, axes = new_figure(file)
    figure.set_size_inches(4.6, 4.8)
    edges = np.linspace(0, 1, len(counts) + 1)
    axes.bar(edges[:-1], np.nan_to_num(accuracy), np.diff(edges), align="edge", alpha=0.4, edgecolor="white")
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
    enough = counts >= MIN_BIN_IMAGES
    (line,) = axes.plot(confidence, np.where(enough, accuracy, np.nan), "o-", clip_on=False)
    sparse = (counts > 0) & ~enough
    axes.plot(confidence[sparse], accuracy[sparse], "o", color=line.get_color(), markerfacecolor="none", clip_on=False)
    for x, y, count in zip(confidence, accuracy, counts, strict=True):
        if count:
            place = (0, -11) if y > 0.9 else (0, 5)  # points; within the axes
            axes.annotate(str(count), (x, y), place, textcoords="offset points", ha="center", fontsize=7)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {error:.3f}", fontsize=10)  # a legend would cover points
    finish_figure(figure, file)


def luminance(colour: np.ndarray) -> float:
    """The relative luminance (WCAG 2), from 0 to 1, of an sRGB colour (3,) of values from 0 to 1."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))

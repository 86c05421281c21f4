"""Plots of a model's predictions, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastpets.utils.figures import NAME_LENGTH, finish_figure, new_figure, shorten

MAX_NAMED_CLASSES = 150  # beyond which a plot with names in the same size would be too large
INCHES_PER_CLASS = 0.22


def plot_confusion_matrix(matrix: np.ndarray, classes: Sequence[str], file: str | Path | None = None) -> None:
    """Plots counts (C, C), actual by predicted class, shaded by their share of the actual class.

    Correct predictions are blue, mistakes are red. The type has one size: the figure grows with the classes, up to
    MAX_NAMED_CLASSES; with more classes, it has no names and no counts.
    """
    num_classes = len(classes)
    figure, axes = new_figure(file)
    is_named = num_classes <= MAX_NAMED_CLASSES
    names = [shorten(name, NAME_LENGTH) for name in classes] if is_named else []
    margin = 1.0 + 0.075 * max(map(len, names), default=0)
    side = max(2.5, INCHES_PER_CLASS * num_classes) + margin if is_named else 16.0
    figure.set_size_inches(side, side)
    shares, correct = matrix / np.maximum(matrix.sum(1, keepdims=True), 1), np.eye(num_classes, dtype=bool)
    for cmap, shown in (("Reds", ~correct & (matrix > 0)), ("Blues", correct & (matrix > 0))):
        axes.imshow(np.ma.masked_array(0.15 + 0.85 * shares, ~shown), cmap=cmap, vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="actual", xticks=[], yticks=[])
    if is_named:
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(num_classes), names, fontsize=8, parse_math=False)
        for i, j in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=8, color=colour)
    finish_figure(figure, file)


def plot_calibration(
    confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray, error: float, file: str | Path | None = None
) -> None:
    """Plots the reliability diagram: accuracy over confidence, for equal bins of confidence (n,).

    `confidence` and `accuracy` (n,) are means over the `counts` (n,) images of each bin, NaN in empty ones; `error` is
    the expected calibration error.
    """
    figure, axes = new_figure(file)
    figure.set_size_inches(4.6, 4.8)
    edges = np.linspace(0, 1, len(counts) + 1)
    axes.bar(edges[:-1], np.nan_to_num(accuracy), np.diff(edges), align="edge", alpha=0.4, edgecolor="white")
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
    axes.plot(confidence[counts > 0], accuracy[counts > 0], "o-", clip_on=False)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {error:.3f}", fontsize=10)  # a legend would cover points
    finish_figure(figure, file)

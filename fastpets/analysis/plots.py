"""Plots of a model's predictions, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastpets.utils.figures import finish_figure, new_figure, shorten

MAX_NAMED_CLASSES = 60  # beyond which class names would be too small to read


def plot_confusion_matrix(matrix: np.ndarray, classes: Sequence[str], file: str | Path | None = None) -> None:
    """Plots counts (C, C), actual by predicted class, shaded by their share of the actual class."""
    num_classes = len(classes)
    figure, axes = new_figure(file)
    side = min(16.0, max(4.0, 0.32 * num_classes + 1.5))
    figure.set_size_inches(side, side)
    axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="actual", xticks=[], yticks=[])
    if num_classes <= MAX_NAMED_CLASSES:
        names = [shorten(name) for name in classes]
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(num_classes), names, fontsize=8, parse_math=False)
        for i, j in zip(*np.nonzero(matrix), strict=True):
            light = matrix[i, j] > 0.5 * matrix[i].sum()
            axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=8, color="white" if light else "black")
    finish_figure(figure, file)


def plot_calibration(
    confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray, error: float, file: str | Path | None = None
) -> None:
    """Plots the reliability diagram: accuracy over confidence, for equal bins of confidence (n,).

    `confidence` and `accuracy` (n,) are means over the `counts` (n,) images of each bin, NaN in empty ones; `error` is
    the expected calibration error.
    """
    figure, axes = new_figure(file)
    figure.set_size_inches(4.6, 4.6)
    edges = np.linspace(0, 1, len(counts) + 1)
    axes.bar(edges[:-1], np.nan_to_num(accuracy), np.diff(edges), align="edge", alpha=0.4, edgecolor="white")
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
    axes.plot(confidence[counts > 0], accuracy[counts > 0], "o-", label=f"expected calibration error {error:.3f}")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    finish_figure(figure, file)

"""Figures, drawn with matplotlib's own objects, so that no global state of it is touched unless one is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpets.utils.figures import shortened

if TYPE_CHECKING:
    from fastpets.training.learner import EpochResult
    from fastpets.training.lr_finder import RateCurve
    from fastpets.training.recorder import Recorder


MOST_NAMED = 60  # classes, beyond which their names would be too small to read


def plot_rate_curve(curve: RateCurve, file: str | Path | None = None) -> None:
    """Loss over learning rate with the three suggestions, less the last points, where the loss explodes."""
    figure, axes = _figure(file)
    shown = slice(None, -5) if len(curve.losses) > 10 else slice(None)
    axes.plot(curve.rates[shown], curve.losses[shown], color="0.3")
    for name in ("steep", "valley", "minimum"):
        rate = getattr(curve, name)
        loss = np.interp(np.log(rate), np.log(curve.rates), curve.losses)
        label = "minimum / 10" if name == "minimum" else name
        axes.plot(rate, loss, "o", markersize=8, label=f"{label}: {rate:.2e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    _finish(figure, file)


def plot_loss(recorder: Recorder, history: Sequence[EpochResult], file: str | Path | None = None) -> None:
    """The smoothed training loss of every step, and the validation loss at the end of each epoch."""
    figure, axes = _figure(file)
    axes.plot(np.arange(1, len(recorder.smoothed) + 1), recorder.smoothed, label="training, smoothed", color="0.5")
    if history:
        ends = [result.batches for result in history]
        axes.plot(ends, [result.valid_loss for result in history], "o-", label="validation")
    axes.set(xlabel="batches", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    _finish(figure, file)


def _figure(file: str | Path | None) -> tuple[Any, Any]:
    """A figure by itself for a file, or one that pyplot shows."""
    if file is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=(7, 4.2), layout="constrained")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    return figure, figure.add_subplot()


def _finish(figure: Any, file: str | Path | None) -> None:
    if file is not None:
        figure.savefig(file, dpi=150, format="png")


def plot_confusion_matrix(matrix: np.ndarray, classes: Sequence[str], file: str | Path | None = None) -> None:
    """(C, C) counts, actual by predicted, shaded by their share of the actual class."""
    num_classes = len(classes)
    figure, axes = _figure(file)
    side = min(16.0, max(4.0, 0.32 * num_classes + 1.5))
    figure.set_size_inches(side, side)
    axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="actual", xticks=[], yticks=[])
    if num_classes <= MOST_NAMED:
        names = [shortened(name) for name in classes]
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(num_classes), names, fontsize=8, parse_math=False)
        for i, j in zip(*np.nonzero(matrix), strict=True):
            light = matrix[i, j] > 0.5 * matrix[i].sum()
            axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=8, color="white" if light else "black")
    _finish(figure, file)


def plot_calibration(
    confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray, error: float, file: str | Path | None = None
) -> None:
    """The reliability diagram: how often predictions of a confidence are right."""
    figure, axes = _figure(file)
    figure.set_size_inches(4.6, 4.6)
    edges = np.linspace(0, 1, len(counts) + 1)
    axes.bar(edges[:-1], np.nan_to_num(accuracy), np.diff(edges), align="edge", alpha=0.4, edgecolor="white")
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
    axes.plot(confidence[counts > 0], accuracy[counts > 0], "o-", label=f"expected calibration error {error:.3f}")
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    _finish(figure, file)

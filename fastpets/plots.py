"""Figures, drawn with matplotlib's own objects, so that no global state of it is touched unless one is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastpets.learner import EpochResult
    from fastpets.lr_finder import RateCurve
    from fastpets.recorder import Recorder


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

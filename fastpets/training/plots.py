"""Plots of training, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastpets.training.history import EpochResult
from fastpets.utils.figures import finish_figure, new_figure, shorten


def plot_rate_curve(
    rates: np.ndarray, losses: np.ndarray, suggestions: Mapping[str, float], file: str | Path | None = None
) -> None:
    """Plots losses (n,) over learning rates (n,). `suggestions` are rates to mark, by name."""
    figure, axes = new_figure(file)
    axes.plot(rates, losses, color="0.3")
    for name, rate in suggestions.items():
        loss = np.interp(np.log(rate), np.log(rates), losses)
        axes.plot(rate, loss, "o", markersize=8, label=f"{name}: {rate:.2e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed training loss")
    axes.grid(alpha=0.3)
    if suggestions:
        axes.legend()
    finish_figure(figure, file)


def plot_loss(smoothed: Sequence[float], history: Sequence[EpochResult], file: str | Path | None = None) -> None:
    """Plots the smoothed training loss after every batch and the validation loss after every epoch."""
    figure, axes = new_figure(file)
    axes.plot(np.arange(1, len(smoothed) + 1), smoothed, label="training, smoothed", color="0.5")
    if history:
        ends = [result.batches for result in history]
        axes.plot(ends, [result.valid_loss for result in history], "o-", label="validation")
    axes.set(xlabel="batches", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    finish_figure(figure, file)


def plot_runs(
    errors: Mapping[str, Sequence[float]], losses: Mapping[str, Sequence[float]], file: str | Path | None = None
) -> None:
    """Plots the error rate and the validation loss after each epoch of several runs, by name."""
    figure, axes = new_figure(file)
    axes.remove()
    figure.set_size_inches(10, 4.2 + 0.2 * len(errors))
    for axes, values, label in zip(
        figure.subplots(1, 2), (errors, losses), ("error rate", "validation loss"), strict=True
    ):
        for name, curve in values.items():
            axes.plot(np.arange(1, len(curve) + 1), curve, "o-", markersize=3, label=shorten(name, 40))
        axes.set(xlabel="epochs", ylabel=label, ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8)
    finish_figure(figure, file)

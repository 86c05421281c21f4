"""Plots of training, by matplotlib."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastpets.training.history import EpochResult
from fastpets.utils.figures import NAME_LENGTH, File, finish_figure, new_figure, shorten

MAX_MARKED_EPOCHS = 60  # beyond which lines at their ends would be too close


def plot_rate_curve(rates: np.ndarray, losses: np.ndarray, suggestions: Mapping[str, float], file: File = None) -> None:
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
    """Plots the smoothed training loss after every batch and the validation loss after every epoch.

    The smoothed loss starts anew in each phase. Lines mark where epochs and phases end, if the epochs are not too many.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(file)
    batches = np.arange(1, len(smoothed) + 1)
    values = np.array(smoothed, dtype=float)
    ends = [result.batches for result in history]
    starts = [i for i, result in enumerate(history) if i and result.epoch == 0]  # of phases, but the first
    breaks = [0, *(ends[i - 1] for i in starts), len(smoothed)]
    for begin, end in itertools.pairwise(breaks):
        label = "training, smoothed" if begin == 0 else None
        axes.plot(batches[begin:end], values[begin:end], label=label, color="0.5")
    if history:
        axes.plot(ends, [result.valid_loss for result in history], "o-", label="validation")
    for i, end in enumerate(ends[:-1]):
        if i + 1 in starts:
            axes.axvline(end, color="0.4", linewidth=1)
        elif len(ends) <= MAX_MARKED_EPOCHS:
            axes.axvline(end, color="0.6", linewidth=0.8, linestyle=":")
    if starts:
        for i, begin in zip([0, *starts], breaks, strict=False):
            name = axes.get_xaxis_transform()  # x in batches, y as a share of the axes
            axes.annotate(history[i].phase, (begin, 1.01), xycoords=name, fontsize=8, color="0.4", parse_math=False)
    axes.set(xlabel="batches", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3, axis="y")
    axes.legend()
    finish_figure(figure, file)


def plot_runs(
    errors: Mapping[str, Sequence[float]], losses: Mapping[str, Sequence[float]], file: str | Path | None = None
) -> None:
    """Plots the error rate and the validation loss after each epoch of several runs, by name."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(file)
    axes.remove()
    figure.set_size_inches(10, 4.2 + 0.2 * len(errors))
    for axes, values, label in zip(
        figure.subplots(1, 2), (errors, losses), ("error rate", "validation loss"), strict=True
    ):
        for name, curve in values.items():
            size = 3 if len(curve) > 1 else 8  # a point without a line
            axes.plot(np.arange(1, len(curve) + 1), curve, "o-", markersize=size, label=shorten(name, NAME_LENGTH))
        highest = np.nanmax([*itertools.chain.from_iterable(values.values()), 0])
        longest = max(map(len, values.values()))
        axes.set(xlabel="epochs", ylabel=label, ylim=(0, 1.08 * highest or 1), xlim=(0.5, longest + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8)
    finish_figure(figure, file)

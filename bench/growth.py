"""Plots the results of `bench_growth.py` from pytest-benchmark's JSON report, one panel per quantity that varies.

python -m bench.growth .benchmarks.json bench/growth.png
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

PREFIX = "cost: "  # of the groups to plot
COLOURS = {
    "fastpets": "#0b6e4f",
    "fastpets-fast": "#6cc3a0",
    "fastpets-disk": "#3a6ea5",
    "torchvision": "#c8553d",
    "decode-only": "#6b7280",
}


def draw(report: dict[str, Any]) -> Figure:
    """Plots a JSON report with the four groups: milliseconds per image and thread, on logarithmic axes."""
    rows = [row for row in report["benchmarks"] if (row["group"] or "").startswith(PREFIX)]
    groups = dict.fromkeys(row["group"] for row in rows)
    figure = Figure(figsize=(9, 7), layout="constrained")
    lines = {}
    for panel, group in zip(figure.subplots(2, 2).flat, groups, strict=True):
        notes = [row["extra_info"] for row in rows if row["group"] == group]
        lines |= _panel(panel, group.removeprefix(PREFIX), notes)
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False)
    figure.supylabel("ms per image: elapsed time x threads", fontsize=10)
    machine = report["machine_info"]
    processor = machine["cpu"].get("brand_raw", machine["machine"])
    figure.suptitle(f"Cost of loading as work grows, {machine['processors_usable']} processors ({processor})")
    return figure


def _panel(panel: Axes, what: str, notes: list[dict[str, Any]]) -> dict[str, Line2D]:
    """Plots one line per row of the benchmark; returns the lines by row name."""
    lines = {}
    for name in dict.fromkeys(note["row"] for note in notes):
        points = sorted(
            (note["x"], 1000 * note["num_threads"] / note["images_per_sec"]) for note in notes if note["row"] == name
        )
        x, cost_ms = zip(*points, strict=True)
        (lines[name],) = panel.plot(x, cost_ms, marker="o", markersize=4, color=COLOURS[name])
    ticks = sorted({note["x"] for note in notes})
    panel.set(xlabel=what, xscale="log", yscale="log")
    panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_locator(NullLocator())
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, 1), max(high, 20))  # the same in all panels, unless a line is outside
    panel.grid(alpha=0.25)
    return lines


def main() -> None:
    path, image = map(Path, sys.argv[1:])
    report = json.loads(path.read_text()) if path.exists() else {"benchmarks": []}
    if not any(row["group"].startswith(PREFIX) for row in report["benchmarks"]):
        print(f"{path}: no rows of bench_growth.py, which needs FASTPETS_PETS; {image} stays as it is")
        return
    draw(report).savefig(image, dpi=120)


if __name__ == "__main__":
    main()

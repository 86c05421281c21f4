"""`fastpets compare`: compares runs in a table, and draws their curves."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from fastpets.errors import InvalidArgumentError, one_line, out_must_be_writable
from fastpets.runs.config import OF_ONE_RUN, read_settings
from fastpets.runs.files import IMAGES, METRICS, Row, check_run, read_rows

HEADING = f"{'':>3}  {'run':<25}  {'epochs':>6}  {'error':>7}  {'lowest error':>12}  {'loss':>7}  {'time':>8}"


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare runs: a table, the settings that differ, and a plot of their curves.

    The run with the lowest error rate is first, if all validate on the same images.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """The run folders."""
    out: Annotated[Path, arg(metavar="FILE.png")] = Path("compare.png")
    """File for the curves of the error rate and the validation loss."""


def compare(config: CompareConfig) -> int:
    """Prints the table and writes the curves. Raises FastpetsError for a folder that is no run."""
    from fastpets.runs.images import VALIDATION, same_images
    from fastpets.training.plots import plot_runs
    from fastpets.utils.atomic import write_atomically

    for run in config.runs:
        check_run("runs", run)
    found = [(run, read_settings(run), read_rows(run / METRICS)) for run in config.runs]
    for run, _, rows in found:
        if not rows:
            raise InvalidArgumentError(f"runs: {run}: no epoch is complete, expected a run with metrics.csv")
    if without := [str(run) for run, *_ in found if not (run / IMAGES).exists()]:
        print(f"no list of images, so that their errors may not be comparable: {', '.join(without)}")
    elif not all(same_images(found[0][0], run, VALIDATION) for run, *_ in found):
        print("the runs validate on different images: their errors cannot be compared, and they are not ranked")
    else:
        found.sort(key=lambda each: float(each[2][-1]["error_rate"]))
    names = [run.resolve().name for run, _, _ in found]
    numbered = list(enumerate(zip(names, found, strict=True), 1))
    print(HEADING)
    for number, (name, (_, _, rows)) in numbered:
        print(line(number, name, rows))
    if lines := differences([settings for _, settings, _ in found]):
        print(f"settings that differ, of runs {' | '.join(str(number) for number, _ in numbered)}:")
        for text in lines:
            print(text)
    errors, losses = (
        {f"{number}: {name}": [float(row[column]) for row in rows] for number, (name, (*_, rows)) in numbered}
        for column in ("error_rate", "valid_loss")
    )
    with out_must_be_writable(config.out):
        write_atomically(config.out, lambda staging: plot_runs(errors, losses, staging))
    print(f"curves: {config.out}")
    return 0


def line(number: int, name: str, rows: Sequence[Row]) -> str:
    """A run in the table: error rate and validation loss of its last epoch, and its lowest error rate."""
    from fastpets.utils.figures import shorten

    errors = [float(row["error_rate"]) for row in rows]
    minutes, seconds = divmod(round(sum(float(row["seconds"]) for row in rows)), 60)
    numbers = f"{len(rows):>6}  {errors[-1]:>7.4f}  {min(errors):>12.4f}  {float(rows[-1]['valid_loss']):>7.4f}"
    return f"{number:>3}  {shorten(name, 25):<25}  {numbers}  {minutes:>5}:{seconds:02}"


def differences(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each flag that differs, with its values in the order of the runs; - where it has none or no effect."""
    names = dict.fromkeys(name for values in settings for name in values if name not in OF_ONE_RUN)
    shown = {name: [_shown(name, values) for values in settings] for name in names}
    differing = {name: texts for name, texts in shown.items() if len({*texts}) > 1}
    return [one_line(f"  --{name.replace('_', '-')}  {' | '.join(texts)}") for name, texts in differing.items()]


def _shown(name: str, settings: Mapping[str, Any]) -> str:
    """The value of a setting as on a command line."""
    value = settings.get(name)
    if value in (None, [], ()) or _is_without_effect(name, settings):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _is_without_effect(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether another setting replaces this one: see the flags of `fastpets train`."""
    if settings.get("schedule") is not None and name in ("epochs", "freeze_epochs", "lr"):
        return True
    return name == "freeze_epochs" and (settings.get("weights") == "none" or settings.get("lr") == "auto")


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["compare", *sys.argv[1:]]))

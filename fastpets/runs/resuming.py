"""Resuming a run: which settings may change, and the phases of a run that trains for more epochs than planned.

Does not import torch.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

from fastpets.errors import InvalidArgumentError
from fastpets.runs.config import TrainConfig, with_absolute_paths
from fastpets.training.history import Progress
from fastpets.training.phases import Phase, parse_schedule

# Settings that may differ when a run is resumed. The images have to be the same, but may have moved. Another number of
# threads may change the order of summation on a CPU, and so the last digits.
CAN_CHANGE = ("data", "labels", "evaluate_test", "device", "num_workers", "cache_dir", "cache_gb", "track")


def check_settings(config: TrainConfig) -> None:
    """Raises InvalidArgumentError if a setting differs from the one of the run that is resumed.

    Those of CAN_CHANGE may differ. `epochs` may be higher, and a `schedule` may have more phases at its end.
    """
    stored = config.defaults()
    assert stored is not None
    stored = with_absolute_paths(stored)
    for field in dataclasses.fields(TrainConfig):
        value, expected = getattr(config, field.name), getattr(stored, field.name)
        if field.name in CAN_CHANGE or value == expected or _is_longer(field.name, value, stored):
            continue
        remedy = "leave it out"
        if field.name == "epochs" and not stored.folds:
            remedy = "give more, or leave it out"
        if stored.schedule is not None and field.name in ("epochs", "schedule"):
            remedy = f"to train on, give a schedule that begins with the run's, {stored.schedule!r}"
        raise InvalidArgumentError(f"{field.name}: {value}, but the run that is resumed has {expected}; {remedy}")


def _is_longer(name: str, value: Any, stored: TrainConfig) -> bool:
    """Whether a setting only adds epochs or phases to those of the stored run, which is no cross-validation."""
    if stored.folds:  # complete folds are not trained on
        return False
    if name == "epochs":
        return stored.schedule is None and value > stored.epochs
    if name == "schedule" and value is not None and stored.schedule is not None:
        phases = parse_schedule(stored.schedule)
        return parse_schedule(value)[: len(phases)] == phases
    return False


def planned_epochs(config: TrainConfig, resolved: dict[str, Any]) -> list[int]:
    """The values of `epochs` with which a run was started and then continued, that of `config` last.

    `resolved` is as in the run's config.json, which has the earlier values.
    """
    stored = config.defaults()
    assert stored is not None
    planned = resolved.get("epochs", [stored.epochs])
    return planned if config.epochs == planned[-1] else [*planned, config.epochs]


def phases(config: TrainConfig, planned: list[int], pretrained: bool) -> list[Phase]:
    """The phases of a run: those with the first of the `planned` epochs, then a cycle for each increase.

    Such a cycle has the rates of the last phase, and keeps the optimizer.
    """
    first = dataclasses.replace(config, epochs=planned[0]).phases(pretrained)
    continued = dataclasses.replace(first[-1], name="continued", frozen_to=None)
    more = [dataclasses.replace(continued, epochs=after - before) for before, after in pairwise(planned)]
    return first + more


def finished(config: TrainConfig, all_phases: list[Phase], progress: Progress) -> str | None:
    """What to say of a run that has no epoch left; None for others. It names parameters."""
    if sum(phase.epochs for phase in all_phases[progress.phase :]) > progress.epoch:
        return None
    if config.schedule is not None:
        remedy = f"to train on, give a longer schedule, such as schedule='{config.schedule}, unfrozen 3 1e-5'"
    else:
        remedy = f"to train for 3 more, use epochs={config.epochs + 3}"
    return f"nothing left to train: all {sum(phase.epochs for phase in all_phases)} epochs are done; {remedy}"

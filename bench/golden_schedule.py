"""Golden values of fastai's schedules and learning rate finder, for tests that run without fastai.

    python -m bench.golden_schedule

writes `tests/golden/fastai_schedule.json`: learning rates and momenta of every parameter group at every step, read from
fastai's own optimizer during `fit_one_cycle` and `fine_tune`, and its rate finder's suggestions for some loss curves.
"""

import json
import math
import random
from pathlib import Path
from typing import Any

import fastai
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import minimum, steep, valley
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import Adam
from torch import nn

FILE = Path(__file__).parent.parent / "tests" / "golden" / "fastai_schedule.json"
NUM_BATCHES, NUM_GROUPS = 7, 3
FITS: list[dict[str, Any]] = [
    {"call": "fit_one_cycle", "epochs": 3, "lr": 3e-3},
    {"call": "fit_one_cycle", "epochs": 2, "lr": [1e-6, 1e-4]},
    {"call": "fit_one_cycle", "epochs": 2, "lr": [None, 2e-3]},
    {"call": "fine_tune", "epochs": 2, "lr": 2e-3, "freeze_epochs": 1},
    {"call": "fine_tune", "epochs": 3, "lr": 1e-2, "freeze_epochs": 2},
]


class Watch(Callback):
    """Records the hyperparameters of each step."""

    order = 90

    def __init__(self) -> None:
        self.steps: list[dict[str, list[float]]] = []

    def before_step(self) -> None:
        hypers = [dict(hyper) for hyper in self.opt.hypers]
        self.steps.append({"lr": [float(h["lr"]) for h in hypers], "mom": [float(h["mom"]) for h in hypers]})


def run(fit: dict[str, Any]) -> list[dict[str, list[float]]]:
    """Learning rates and momenta of the steps of a fit, on a model of three linear layers."""
    pairs = [(torch.randn(4), torch.randn(2)) for _ in range(2 * NUM_BATCHES)]
    dls = DataLoaders(DataLoader(pairs, bs=2), DataLoader(pairs[:2], bs=2))
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    watch = Watch()
    learner = Learner(
        dls,
        model,
        loss_func=nn.MSELoss(),
        opt_func=Adam,
        cbs=watch,
        splitter=lambda m: [list(layer.parameters()) for layer in m],
    )
    lr = slice(*fit["lr"]) if isinstance(fit["lr"], list) else fit["lr"]
    with learner.no_bar(), learner.no_logging():
        if fit["call"] == "fit_one_cycle":
            learner.fit_one_cycle(fit["epochs"], lr)
        else:
            learner.fine_tune(fit["epochs"], lr, freeze_epochs=fit["freeze_epochs"])
    return watch.steps


def curves() -> list[dict[str, Any]]:
    """Loss curves of learning rate sweeps, some of them degenerate, with fastai's suggestions."""
    noise = random.Random(0)
    rates = [1e-7 * 1e8 ** (step / 100) for step in range(100)]

    def usual(i: int) -> float:
        return 3 - 2 / (1 + math.exp(-(i - 60) / 6)) + math.exp((i - 88) / 3) + noise.gauss(0, 0.03)

    losses = {
        "usual": [usual(i) for i in range(100)],
        "already trained": [0.3 + math.exp((i - 80) / 4) + noise.gauss(0, 0.01) for i in range(95)],
        "falls throughout": [3 - 0.0002 * i**2 for i in range(100)],
        "rises throughout": [1 + 0.0001 * (i + 5) ** 2 for i in range(60)],
        "stops soon": [2.5 - 0.005 * i**2 for i in range(20)],
        "no number at the end": [*(usual(i) for i in range(80)), *[math.nan] * 20],
    }
    found = []
    for name, curve in losses.items():
        lrs, values = torch.tensor(rates[: len(curve)][10:-5]), torch.tensor(curve[10:-5])
        if (unclear := values.isnan().nonzero()).numel():
            lrs, values = lrs[: unclear.min()], values[: unclear.min()]
        suggested = {each.__name__: each(lrs, values, 100)[0] for each in (minimum, steep, valley)}
        numbers = [None if math.isnan(value) else value for value in curve]
        found.append({"name": name, "losses": numbers, "suggested": suggested})
    return found


if __name__ == "__main__":
    fits = [{**fit, "steps": run(fit)} for fit in FITS]
    golden = {"fastai": fastai.__version__, "num_batches": NUM_BATCHES, "fits": fits, "curves": curves()}
    FILE.write_text(json.dumps(golden, separators=(",", ":")).replace('{"', '\n{"') + "\n")

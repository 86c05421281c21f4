"""Overhead of the learner's loop over a bare PyTorch loop, with the same model, optimizer, scheduler and batches."""

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fastpets.augment.preprocessing import Preprocessing
from fastpets.loading.batch import Batch
from fastpets.models.classifier import Classifier
from fastpets.training.input_timer import InputTimer
from fastpets.training.learner import Learner
from fastpets.training.parameter_groups import adamw, layer_groups
from fastpets.training.phases import Phase
from fastpets.training.schedule import one_cycle

NUM_STEPS, ROUNDS = 500, 20
CPU = torch.device("cpu")


class InMemory:
    """Stands in for a Loader: the parts of it that a learner uses, with batches that are in memory."""

    preprocessing, device, batch_size = Preprocessing(size=(4, 4)), CPU, 2
    classes = ("a", "b")
    has_own_normalization = True

    def __init__(self) -> None:
        images = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
        self.batches = [Batch(images, torch.tensor([0, 1]))] * NUM_STEPS
        self.dataset = type("ImageDataset", (), {"labels": torch.tensor([0, 1]).numpy()})
        self.headers = SimpleNamespace(usable=np.ones(2, bool))
        self.sampler = range(2 * NUM_STEPS)

    def __len__(self) -> int:
        return NUM_STEPS

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def with_classes(self, classes: Sequence[str]) -> "InMemory":
        return self

    def prepare(self) -> None:
        pass

    def end_prepared(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


def tiny_model() -> Classifier:
    """Returns a model so small that the loop's overhead dominates."""
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1)), 2, 2)
    model.head = nn.Sequential(nn.Linear(2, 2))
    return model


def bare_epoch() -> Callable[[], None]:
    model = tiny_model().to(memory_format=torch.channels_last).train()
    optimizer, batches = adamw(model, layer_groups(model), 0.01), InMemory()

    def run() -> None:
        scheduler = one_cycle(optimizer, [1e-3] * len(optimizer.param_groups), NUM_STEPS, pct_start=0.3, div=5)
        for images, labels in batches:
            loss = cross_entropy(model(images).float(), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()

    return run


def learners_epoch() -> Callable[[], None]:
    loader: Any = InMemory()
    learner = Learner(loader, loader, tiny_model(), print_epochs=False)
    phase = Phase(name="bench", epochs=1, lr=1e-3, pct_start=0.3, div=5)

    def run() -> None:
        scheduler = one_cycle(
            learner.train_step.optimizer,
            [1e-3] * len(learner.train_step.optimizer.param_groups),
            NUM_STEPS,
            pct_start=phase.pct_start,
            div=phase.div,
        )
        learner.progress.num_batches = 0
        learner._train_epoch(scheduler, InputTimer(CPU), "training")

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Limits torch to one thread during the test."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.benchmark(group="the learner's overhead per step")
def bench_step(benchmark: Any) -> None:
    """Times both loops' epochs in turn, and reports the median difference per step."""
    bare, ours = bare_epoch(), learners_epoch()
    differences: list[float] = []

    def one_round() -> None:
        times = []
        for run in (bare, ours):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        differences.append((times[1] - times[0]) / NUM_STEPS)

    rounds = ROUNDS if benchmark.enabled else 1
    benchmark.pedantic(one_round, rounds=rounds, warmup_rounds=1 if benchmark.enabled else 0)
    difference_us = median(differences) * 1e6
    benchmark.extra_info["us_per_step"] = difference_us
    print(f"\nthe learner's loop: {difference_us:.0f} us per step more than a bare loop, median of {len(differences)}")

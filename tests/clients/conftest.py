"""Fixtures of the tests of clients: loaders whose images are identified by their labels, and a model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastpets import Loader
from fastpets.data.sources import from_folder
from tests.clients.batch_recorder import NUM_CLASSES, NUM_TRAIN, MakeLoaders

FOLDER = Path(__file__).parent
SETTINGS = {"size": 32, "batch_size": 4, "num_workers": 2, "device": "cpu"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, which need other libraries, as slow."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def make_loaders(make_folder: Callable[..., Path]) -> MakeLoaders:
    """Makes a training and a validation loader; each image has a class of its own, which identifies it."""
    dataset = from_folder(make_folder(NUM_CLASSES, num_classes=NUM_CLASSES))
    train_dataset, valid_dataset = (
        dataset.select(np.arange(NUM_TRAIN)),
        dataset.select(np.arange(NUM_TRAIN, NUM_CLASSES)),
    )

    def make(**settings: Any) -> tuple[Loader, Loader]:
        settings = SETTINGS | settings
        return Loader(train_dataset, augment=True, **settings), Loader(valid_dataset, **settings)

    return make


@pytest.fixture
def model() -> torch.nn.Module:
    """A small classifier of images, with batch norm."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=4, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, NUM_CLASSES),
    )


@pytest.fixture(autouse=True)
def torch_seed() -> Iterator[None]:
    """Seeds torch's generator for the test and restores its state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield

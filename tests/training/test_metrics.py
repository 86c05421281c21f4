"""Metrics against their definitions in NumPy."""

from typing import get_args

import numpy as np
import pytest
import torch

from fastpets.training.metrics import ValidationMetrics
from fastpets.training.options import MetricName

CLASSES = [f"class {number}" for number in range(7)]
CPU = torch.device("cpu")


def test_metrics_match_their_definitions() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(200, 7)), generator.integers(7, size=200)
    logits[np.arange(200), labels] += generator.normal(1, 1, size=200)
    metrics = ValidationMetrics(get_args(MetricName), CLASSES, CPU)
    for start in range(0, 200, 64):
        part = slice(start, start + 64)
        metrics.update(torch.from_numpy(logits[part]).float(), torch.from_numpy(labels[part]))
    found = metrics.values()
    predicted = logits.argmax(1)
    hits = np.array([((predicted == c) & (labels == c)).sum() for c in range(7)])
    counts, guesses = np.bincount(labels, minlength=7), np.bincount(predicted, minlength=7)
    accuracy = (predicted == labels).mean()
    rank = (logits > logits[np.arange(200), labels][:, None]).sum(1)
    expected = {"error_rate": 1 - accuracy, "accuracy": accuracy, "top5": (rank < 5).mean()}
    expected |= {"macro_f1": (2 * hits / (counts + guesses)).mean()}
    expected |= {f"recall/{name}": value for name, value in zip(CLASSES, hits / counts, strict=True)}
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_error_rate_is_always_computed_and_top5_of_few_classes_is_1() -> None:
    metrics = ValidationMetrics(["top5"], CLASSES[:3], CPU)
    metrics.update(torch.eye(3), torch.tensor([1, 1, 1]))
    assert metrics.values() == pytest.approx({"error_rate": 2 / 3, "top5": 1})


def test_the_recall_of_a_class_without_images_is_no_number() -> None:
    metrics = ValidationMetrics(["recall"], CLASSES[:3], CPU)
    metrics.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 0, 1]))
    found = metrics.values()
    assert (found["recall/class 0"], found["recall/class 1"]) == (0.5, 1)
    assert np.isnan(found["recall/class 2"])

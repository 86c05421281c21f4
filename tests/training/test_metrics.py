"""Metrics against their definitions in NumPy."""

from typing import get_args

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from fastpets.training.metrics import ValidationMetrics
from fastpets.training.options import MetricName
from tests.waiting import imagined_gpu, nothing_waits

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


def test_classes_without_images_count_as_in_torchmetrics() -> None:
    logits = torch.randn(50, 7).index_fill(1, torch.tensor([2, 5]), -100)  # never predicted
    labels = torch.randint(5, (50,))  # never 5 or 6
    metrics = ValidationMetrics(["macro_f1", "top5"], CLASSES, CPU)
    metrics.update(logits, labels)
    expected = {
        "error_rate": 1 - MulticlassAccuracy(7, average="micro")(logits, labels).item(),
        "macro_f1": MulticlassF1Score(7, average="macro")(logits, labels).item(),
        "top5": MulticlassAccuracy(7, top_k=5, average="micro")(logits, labels).item(),
    }
    assert metrics.values() == pytest.approx(expected, rel=1e-6)


def test_a_users_metric_has_all_images_and_torchmetrics_objects_are_not_changed() -> None:
    seen: list[torch.Tensor] = []
    auroc = MulticlassAUROC(3, thresholds=20)
    metrics = ValidationMetrics({"own": lambda *both: seen.extend(both) or 0.5, "auroc": auroc}, CLASSES[:3], CPU)
    logits, labels = torch.randn(20, 3), torch.arange(20) % 3
    for part in (slice(0, 8), slice(8, 20)):
        metrics.update(logits[part], labels[part])
    expected = MulticlassAUROC(3, thresholds=20)(logits.softmax(1), labels).item()
    found = metrics.values()
    assert (found["own"], found["auroc"]) == pytest.approx((0.5, expected))
    assert torch.equal(seen[0], logits.softmax(1))
    assert torch.equal(seen[1], labels)
    assert auroc.validate_args
    assert auroc.update_count == 0


def test_an_update_does_not_wait_for_the_gpu() -> None:
    with imagined_gpu() as device:
        metrics = ValidationMetrics({**{name: name for name in get_args(MetricName)}, "own": own}, CLASSES, device)
        with nothing_waits():
            for _ in range(2):
                metrics.update(torch.zeros(4, 7, device=device), torch.zeros(4, dtype=torch.int64, device=device))


def own(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    return 0.0


def test_a_metric_whose_update_fails_is_nan_with_a_warning() -> None:
    class Failing(MulticlassAccuracy):
        def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
            if len(target) == 3:
                raise ValueError("three images")
            super().update(preds, target)

    metrics = ValidationMetrics({"mine": Failing(2)}, ("a", "b"), torch.device("cpu"))
    for num_images in (2, 3, 4):
        metrics.update(torch.eye(2)[torch.arange(num_images) % 2], torch.arange(num_images) % 2)
    with pytest.warns(UserWarning, match=r"^metrics: mine fails: ValueError: three images; its value is NaN$"):
        values = metrics.values()
    assert np.isnan(values["mine"])
    assert values["error_rate"] == 0

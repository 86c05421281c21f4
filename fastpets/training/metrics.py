"""Metrics by their names, over all images of all processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall

from fastpets.errors import FastpetsError

NAMES = ("error_rate", "accuracy", "top5", "macro_f1", "recall")


class ErrorRate(MulticlassAccuracy):
    """1 - accuracy, over all images alike."""

    def compute(self) -> torch.Tensor:
        return 1 - super().compute()


def make_metrics(names: Sequence[str], num_classes: int) -> MetricCollection:
    """The error rate and what is named besides. Raises FastpetsError for a name that is none of `NAMES`."""
    if unknown := set(names) - set(NAMES):
        raise FastpetsError(f"metric {min(unknown)!r}, expected some of {', '.join(NAMES)}")
    quick: Any = {"validate_args": False}  # else each batch waits for the GPU to have its labels looked at
    made: dict[str, Metric | MetricCollection] = {"error_rate": ErrorRate(num_classes, average="micro", **quick)}
    if "accuracy" in names:
        made["accuracy"] = MulticlassAccuracy(num_classes, average="micro", **quick)
    if "top5" in names:
        made["top5"] = MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro", **quick)
    if "macro_f1" in names:
        made["macro_f1"] = MulticlassF1Score(num_classes, average="macro", **quick)
    if "recall" in names:
        made["recall"] = MulticlassRecall(num_classes, average=None, **quick)
    return MetricCollection(made, compute_groups=False)


def compute(metrics: MetricCollection, classes: Sequence[str]) -> dict[str, float]:
    """The values by name; the recall of each class under `recall/CLASS`."""
    values: dict[str, float] = {}
    for name, value in metrics.compute().items():
        if value.ndim:
            values |= {f"{name}/{of}": number for of, number in zip(classes, value.tolist(), strict=True)}
        else:
            values[name] = value.item()
    return values

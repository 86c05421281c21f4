"""Validation metrics by name, from torchmetrics, over all images of all processes."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall
from torchmetrics.wrappers import ClasswiseWrapper

from fastpets.errors import InvalidArgumentError
from fastpets.training.options import MetricName


class ErrorRate(MulticlassAccuracy):
    """1 - accuracy, each image weighted equally."""

    def compute(self) -> torch.Tensor:
        return 1 - super().compute()


class Recall(MulticlassRecall):
    """The recall of each class, NaN for a class without images; torchmetrics has 0 for it."""

    def compute(self) -> torch.Tensor:
        num_images = torch.as_tensor(self.tp) + torch.as_tensor(self.fn)
        return super().compute().where(num_images > 0, torch.nan)


def make_metrics(names: Sequence[MetricName], classes: Sequence[str]) -> MetricCollection:
    """Makes the error rate and the metrics of those names; "recall" gives one value per class, `recall/CLASS`.

    Raises InvalidArgumentError for an unknown name.
    """
    if unknown := set(names) - set(get_args(MetricName)):
        raise InvalidArgumentError(f"metrics: {min(unknown)!r}, expected some of {', '.join(get_args(MetricName))}")
    num_classes = len(classes)
    options: Any = {"validate_args": False}  # torchmetrics' validation would synchronise with the GPU for each batch
    metrics: dict[str, Metric | MetricCollection] = {"error_rate": ErrorRate(num_classes, average="micro", **options)}
    if "accuracy" in names:
        metrics["accuracy"] = MulticlassAccuracy(num_classes, average="micro", **options)
    if "top5" in names:
        metrics["top5"] = MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro", **options)
    if "macro_f1" in names:
        metrics["macro_f1"] = MulticlassF1Score(num_classes, average="macro", **options)
    if "recall" in names:
        recall = Recall(num_classes, average=None, **options)
        metrics["recall"] = ClasswiseWrapper(recall, labels=list(classes), prefix="recall/")
    return MetricCollection(metrics, compute_groups=False)


def metric_values(metrics: MetricCollection) -> dict[str, float]:
    """The values of the metrics by name, over the images of all processes."""
    return {name: value.item() for name, value in metrics.compute().items()}

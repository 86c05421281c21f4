"""Validation metrics over all images of all processes: by name, from torchmetrics, and the user's own."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall
from torchmetrics.wrappers import ClasswiseWrapper

from fastpets.errors import InvalidArgumentError, warn
from fastpets.models.weights import short_reason
from fastpets.training import distributed
from fastpets.training.options import MetricName

MAX_CHECKED = 1000  # classes of which a metric is computed before training
UNCHECKED: Any = {"validate_args": False}  # torchmetrics' validation would synchronise with the GPU for each batch


class ErrorRate(MulticlassAccuracy):
    """1 - accuracy, each image weighted equally."""

    def compute(self) -> torch.Tensor:
        return 1 - super().compute()


class Recall(MulticlassRecall):
    """The recall of each class, NaN for a class without images; torchmetrics has 0 for it."""

    def compute(self) -> torch.Tensor:
        num_images = torch.as_tensor(self.tp) + torch.as_tensor(self.fn)
        return super().compute().where(num_images > 0, torch.nan)


def _standard_metric(name: str, kind: MetricName, classes: Sequence[str]) -> Metric | MetricCollection:
    """The metric of a kind; "recall" gives one value per class, `NAME/CLASS`."""
    num_classes = len(classes)
    if kind == "accuracy":
        return MulticlassAccuracy(num_classes, average="micro", **UNCHECKED)
    if kind == "top5":
        return MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro", **UNCHECKED)
    if kind == "macro_f1":
        return MulticlassF1Score(num_classes, average="macro", **UNCHECKED)
    recall = Recall(num_classes, average=None, **UNCHECKED)
    return ClasswiseWrapper(recall, labels=list(classes), prefix=f"{name}/")


class ValidationMetrics:
    """The error rate and the `metrics` of TrainingOptions over one validation.

    Torchmetrics' objects are copied, so that the user's own stay as they are.
    """

    def __init__(self, metrics: Sequence[MetricName] | Mapping[str, Any], classes: Sequence[str], device: torch.device):
        named = metrics if isinstance(metrics, Mapping) else {name: name for name in metrics}
        standard: dict[str, Any] = {"error_rate": ErrorRate(len(classes), average="micro", **UNCHECKED)}
        self.device, self.num_classes = device, len(classes)
        self.objects: dict[str, Metric] = {}
        self.functions: dict[str, Callable[..., Any]] = {}
        for name, metric in named.items():
            if isinstance(metric, str):
                standard[name] = _standard_metric(name, cast(MetricName, metric), classes)
            elif isinstance(metric, Metric):
                self.objects[name] = metric.clone().to(device)
                self.objects[name].reset()
            else:
                self.functions[name] = metric
        self.standard = MetricCollection(standard, compute_groups=False).to(device)
        self._probabilities = [torch.empty(0, len(classes))]
        self._labels = [torch.empty(0, dtype=torch.int64)]

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch of logits (B, C) and labels (B,)."""
        self.standard.update(logits, labels)
        if self.objects or self.functions:
            probabilities = logits.softmax(1)
            for metric in self.objects.values():
                metric.update(probabilities, labels)
        if self.functions:
            self._probabilities.append(probabilities.cpu())
            self._labels.append(labels.cpu())

    def values(self) -> dict[str, float]:
        """The value of each metric by its name, over the images of all processes.

        A metric of the user's own that fails is NaN, with a warning, so that no epoch is lost.
        """
        found = {name: value.item() for name, value in self.standard.compute().items()}
        found |= {name: _number_or_nan(name, metric.compute) for name, metric in self.objects.items()}
        if self.functions:
            parts = distributed.gather((torch.cat(self._probabilities), torch.cat(self._labels)))
            arguments = [torch.cat(part) for part in zip(*parts, strict=True)]
            found |= {name: _number_or_nan(name, function, *arguments) for name, function in self.functions.items()}
        return found

    def check(self, all_labels: np.ndarray) -> None:
        """Computes the user's own metrics once, of an image of each class in `all_labels` (N,).

        Raises InvalidArgumentError if one fails.
        """
        labels = torch.from_numpy(np.unique(all_labels)[:MAX_CHECKED])
        probabilities = torch.nn.functional.one_hot(labels, self.num_classes).float().softmax(1)
        for name in (*self.objects, *self.functions):
            try:
                if name in self.objects:
                    self.objects[name].update(probabilities.to(self.device), labels.to(self.device))
                    value = self.objects[name].compute()
                    self.objects[name].reset()
                else:
                    value = self.functions[name](probabilities, labels)
            except Exception as error:  # the user's own code raises errors of any type
                raise InvalidArgumentError(
                    f"metrics: {name} fails with probabilities {tuple(probabilities.shape)} and labels "
                    f"{tuple(labels.shape)} int64: {type(error).__name__}: {short_reason(error)}"
                ) from error
            _number(name, value)


def _number_or_nan(name: str, metric: Callable[..., Any], *arguments: torch.Tensor) -> float:
    """The value of a user's metric; NaN, with a warning, if it fails."""
    try:
        return _number(name, metric(*arguments))
    except InvalidArgumentError as error:
        problem = str(error)
    except Exception as error:  # the user's own code raises errors of any type
        problem = f"metrics: {name} fails: {type(error).__name__}: {short_reason(error)}"
    warn(f"{problem}; its value is NaN")
    return math.nan


def _number(name: str, value: Any) -> float:
    """The value of a metric as a number. Raises InvalidArgumentError if it is another thing."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise InvalidArgumentError(f"metrics: {name} gives {found}, expected one number") from None

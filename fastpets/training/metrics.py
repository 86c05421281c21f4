"""Validation metrics over all images of all processes: by name, and the user's own."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torchmetrics import Metric

from fastpets.errors import InvalidArgumentError, warn
from fastpets.models.weights import short_reason
from fastpets.training import distributed
from fastpets.training.host_copies import HostCopies
from fastpets.training.options import MetricName

MAX_CHECKED = 1000  # classes of which a metric is computed before training


class Counts(NamedTuple):
    """Numbers of images, float64: all; with their label among the first 5; and (C,) hits, labels and predictions."""

    images: torch.Tensor
    top5: torch.Tensor
    hits: torch.Tensor
    labels: torch.Tensor
    predictions: torch.Tensor


def _standard_values(name: str, kind: MetricName, counts: Counts, classes: Sequence[str]) -> dict[str, float]:
    """The metric of a kind from counts on the CPU; "recall" gives one value per class, `NAME/CLASS`."""
    if kind == "recall":  # NaN for a class without images
        recalls = (counts.hits / counts.labels).tolist()
        return {f"{name}/{label}": recall for label, recall in zip(classes, recalls, strict=True)}
    if kind == "macro_f1":  # over the classes that have images or predictions
        pairs = counts.labels + counts.predictions
        return {name: (2 * counts.hits / pairs)[pairs > 0].mean().item()}
    return {name: ((counts.top5 if kind == "top5" else counts.hits.sum()) / counts.images).item()}


class ValidationMetrics:
    """The error rate and the `metrics` of TrainingOptions over one validation.

    `update` queues work on the device and never waits for it, except where a torchmetrics object of the user's does.
    These objects are copied, so that the user's own stay as they are.
    """

    def __init__(self, metrics: Sequence[MetricName] | Mapping[str, Any], classes: Sequence[str], device: torch.device):
        named: Mapping[str, Any] = metrics if isinstance(metrics, Mapping) else {name: name for name in metrics}
        self.named, self.device, self.classes = named, device, tuple(classes)
        self.standard: dict[str, MetricName] = {}
        self.objects: dict[str, Metric] = {}
        self.failures: dict[str, Exception] = {}  # the first of each object's update
        self.functions: dict[str, Callable[..., Any]] = {}
        for name, metric in named.items():
            if isinstance(metric, str):
                self.standard[name] = cast(MetricName, metric)
            elif isinstance(metric, Metric):
                self.objects[name] = _unchecked(_new(metric, device))
            else:
                self.functions[name] = metric
        num_classes = len(classes)
        self._top5 = torch.zeros(1, dtype=torch.int64, device=device)
        self._by_class = torch.zeros(3, num_classes, dtype=torch.int64, device=device)  # hits, labels, predictions
        self._probabilities = HostCopies(torch.empty(0, num_classes))
        self._labels = HostCopies(torch.empty(0, dtype=torch.int64))

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch of logits (B, C) and labels (B,)."""
        predicted = logits.argmax(1)
        hits, of_labels, of_predictions = self._by_class
        # Neither bincount nor a mask: the host would wait for the size of their result.
        hits.scatter_add_(0, labels, (predicted == labels).long())
        of_labels.scatter_add_(0, labels, torch.ones_like(labels))
        of_predictions.scatter_add_(0, predicted, torch.ones_like(predicted))
        if "top5" in self.standard.values():
            first = logits.topk(min(5, len(self.classes)), dim=1).indices
            self._top5 += (first == labels[:, None]).sum()
        if self.objects or self.functions:
            probabilities = logits.softmax(1)
            for name, metric in self.objects.items():
                try:
                    metric.update(probabilities, labels)
                except Exception as error:  # the user's own code raises errors of any type
                    self.failures.setdefault(name, error)
        if self.functions:
            self._probabilities.append(probabilities)
            self._labels.append(labels)

    def values(self) -> dict[str, float]:
        """The value of each metric by its name, over the images of all processes.

        A metric of the user's own that fails is NaN, with a warning, so that no epoch is lost.
        """
        counts = self._counts()
        found = {"error_rate": 1 - _standard_values("", "accuracy", counts, self.classes)[""]}
        for name, kind in self.standard.items():
            found |= _standard_values(name, kind, counts, self.classes)
        found |= {name: _number_or_nan(name, partial(self._computed, name)) for name in self.objects}
        if self.functions:
            parts = distributed.gather((self._probabilities.joined(), self._labels.joined()))
            arguments = [torch.cat(part) for part in zip(*parts, strict=True)]
            found |= {name: _number_or_nan(name, function, *arguments) for name, function in self.functions.items()}
        return found

    def _computed(self, name: str) -> Any:
        """The value of one of the user's objects. Raises what its `update` or `compute` has raised."""
        value = self.objects[name].compute()  # even if an update has failed: other processes wait for this one
        if name in self.failures:
            raise self.failures[name]
        return value

    def _counts(self) -> Counts:
        """The counts over all processes, divided by their number. Waits for the device once."""
        packed = distributed.mean(torch.cat([self._top5, self._by_class.flatten()]).double()).cpu()
        hits, labels, predictions = packed[1:].view(3, -1)
        return Counts(labels.sum(), packed[0], hits, labels, predictions)

    def check(self, all_labels: np.ndarray) -> None:
        """Computes the user's own metrics once, of an image of each class in `all_labels` (N,).

        Raises InvalidArgumentError if one fails.
        """
        labels = torch.from_numpy(np.unique(all_labels)[:MAX_CHECKED])
        probabilities = torch.nn.functional.one_hot(labels, len(self.classes)).float().softmax(1)
        for name in (*self.objects, *self.functions):
            try:
                if name in self.objects:
                    metric = _new(self.named[name], self.device)  # with torchmetrics' own checks
                    metric.update(probabilities.to(self.device), labels.to(self.device))
                    value = metric.compute()
                else:
                    value = self.functions[name](probabilities, labels)
            except Exception as error:  # the user's own code raises errors of any type
                raise InvalidArgumentError(
                    f"metrics: {name} fails with probabilities {tuple(probabilities.shape)} and labels "
                    f"{tuple(labels.shape)} int64: {type(error).__name__}: {short_reason(error)}"
                ) from error
            _number(name, value)


def _new(metric: Metric, device: torch.device) -> Metric:
    """A copy of a metric, without what was added to it."""
    copy = metric.clone().to(device)
    copy.reset()
    return copy


def _unchecked(metric: Metric) -> Metric:
    """The metric without torchmetrics' checks of its arguments, which would wait for the GPU in each batch."""
    if hasattr(metric, "validate_args"):
        metric.validate_args = False
    return metric


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

"""Interpretation of a trained model: confusion matrix, highest losses, precision and recall, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fastpets.analysis import plots
from fastpets.errors import FastpetsError
from fastpets.loading.display import in_place, to_pixels, usable_batches
from fastpets.training import distributed
from fastpets.training.host_copies import HostCopies
from fastpets.utils.figures import image_grid

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader
    from fastpets.training.learner import Learner

Part = Literal["train", "valid"]
NUM_BINS = 10  # of calibration: intervals of confidence of equal width


class Prediction(NamedTuple):
    """The prediction for one validation image, with its actual class."""

    path: str
    actual: str
    predicted: str
    loss: float
    probability: float  # of the predicted class


@dataclass(frozen=True, eq=False, repr=False)
class Interpretation:
    """A model's predictions on images, such as those of a validation loader.

    Attributes:
        loader: loader of the images; it has their paths and the names of the classes.
        ids: item ids (N,) int64 of the predicted images.
        labels: actual class of each image (N,) int64.
        probabilities: predicted probabilities (N, C) float64.
        losses: cross entropy of each image (N,) float64.
        model: the model in evaluation mode, for Grad-CAM; None if only its predictions are known.
    """

    loader: Loader
    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray
    model: nn.Module | None = None

    def __repr__(self) -> str:
        wrong = int((self.predicted != self.labels).sum())
        return f"Interpretation({len(self.labels):,} images of {len(self.classes)} classes, {wrong:,} of them mistaken)"

    @classmethod
    def from_learner(cls, learner: Learner, part: Part = "valid") -> Interpretation:
        """Predicts all validation images of a learner, in each process, with the weights that `validate` uses.

        With `part="train"`, its training images, each once, in order and without augmentation.
        """
        loader, model = learner.matched(learner.valid), learner.train_step.evaluated_model.eval()
        if part == "train" or distributed.world_size() > 1:
            dataset = learner.train.dataset if part == "train" else loader.dataset
            loader = loader.like(dataset, rank=0, world_size=1)
        return replace(cls.of(loader, lambda images: learner.train_step.logits(images, model)), model=model)

    @classmethod
    def from_run(cls, run: str | Path, device: str = "auto", part: Part = "valid") -> Interpretation:
        """Predicts the validation images of a run with its saved model.

        `run` is the run folder, or a folder by Learner.export. The images are those of its images.parquet, however the
        data set has changed since. With `part="train"`, its training images, each once, in order and without
        augmentation. Raises FastpetsError if the folder has no model, or if the images cannot be found.
        """
        from fastpets.runs.build import datasets_of_run
        from fastpets.runs.predictor import load

        folder = Path(run)
        saved = load(folder, device)
        train, valid = datasets_of_run(folder)
        try:
            loader = saved.loader(train if part == "train" else valid, on_bad_file="skip", rank=0, world_size=1)
        except FastpetsError as error:
            raise FastpetsError(f"{folder}: {error}") from None
        return replace(cls.of(loader, lambda images: saved.model(images).float()), model=saved.model)

    @classmethod
    def from_folds(cls, run: str | Path, device: str = "auto") -> Interpretation:
        """The predictions of a cross-validation: those of each image are by the model that was not trained on it.

        Raises FastpetsError if `run` is not the folder of such a run.
        """
        from fastpets.runs.folds import fold_folder
        from fastpets.runs.predictions import read_predictions
        from fastpets.runs.predictor import load

        dataset, probabilities = read_predictions(Path(run))
        loader = load(fold_folder(Path(run), 0), device).loader(dataset, on_bad_file="skip", rank=0, world_size=1)
        return cls.from_predictions(loader, probabilities)

    @classmethod
    def from_predictions(
        cls, loader: Loader, probabilities: np.ndarray, ids: np.ndarray | None = None
    ) -> Interpretation:
        """Interprets predictions made elsewhere, such as those of cross-validation.

        Args:
            loader: loader of the data set that has the images, their labels and the classes.
            probabilities: (N, C), of the classes in the loader's order.
            ids: indices (N,) of the images in the data set; by default all, in order.

        Images without a label are left out.
        """
        ids = np.arange(len(loader.dataset)) if ids is None else ids
        labels, probabilities = loader.dataset.labels[ids], np.asarray(probabilities, np.float64)
        if probabilities.shape != (len(ids), len(loader.classes)):
            raise FastpetsError(
                f"probabilities of shape {probabilities.shape}, expected {(len(ids), len(loader.classes))}, a row for "
                "each image and a column for each class"
            )
        ids, probabilities, labels = ids[labels >= 0], probabilities[labels >= 0], labels[labels >= 0]
        own = probabilities[np.arange(len(ids)), labels]
        return cls(loader, ids, labels, probabilities, -np.log(np.maximum(own, np.finfo(np.float64).tiny)))

    @classmethod
    @torch.inference_mode()
    def of(cls, loader: Loader, model: Callable[[torch.Tensor], torch.Tensor]) -> Interpretation:
        """Predicts the images of a loader's next epoch. `model` maps a batch of images to logits (B, C).

        Raises FastpetsError if the epoch has no images.
        """
        ids_of_batches = []
        all_labels, all_logits = HostCopies(torch.empty(0, dtype=torch.int64)), HostCopies(torch.empty(0))
        for batch in loader:
            ids_of_batches.append(batch.ids)
            all_labels.append(batch.labels)
            all_logits.append(model(batch.images))
        if not ids_of_batches:
            raise FastpetsError(f"no image to predict: none of {len(loader.dataset)} files can be used")
        ids, labels = np.concatenate(ids_of_batches), all_labels.joined()
        log_probabilities = all_logits.joined().double().log_softmax(1)
        losses = -log_probabilities.gather(1, labels[:, None])[:, 0]
        return cls(loader, ids, labels.numpy(), log_probabilities.exp().numpy(), losses.numpy())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return self.loader.classes

    @property
    def predicted(self) -> np.ndarray:
        """Most probable class of each image (N,) int64."""
        return self.probabilities.argmax(1)

    def confusion_matrix(self) -> np.ndarray:
        """Counts (C, C) int64 of images of class i that were predicted as class j."""
        predicted, labels = torch.from_numpy(self.predicted), torch.from_numpy(self.labels)
        return multiclass_confusion_matrix(predicted, labels, len(self.classes)).numpy()

    def most_confused(self, min_val: int = 1) -> list[tuple[str, str, int]]:
        """(actual, predicted, count) of the pairs of classes with `min_val` or more errors, the most frequent first."""
        wrong = self.confusion_matrix()
        np.fill_diagonal(wrong, 0)
        pairs = [(int(wrong[i, j]), int(i), int(j)) for i, j in zip(*np.nonzero(wrong >= max(1, min_val)), strict=True)]
        return [
            (self.classes[i], self.classes[j], count) for count, i, j in sorted(pairs, key=lambda p: (-p[0], p[1:]))
        ]

    def top_losses(self, k: int | None = None) -> list[Prediction]:
        """The `k` images with the highest losses, or all images; the highest loss first."""
        return self._predictions(self._by_loss()[:k])

    def mistakes(self) -> list[Prediction]:
        """The misclassified images, the highest loss first."""
        return self._predictions(self._mistaken())

    def mistaken_ids(self) -> np.ndarray:
        """Item ids (M,) int64 of the misclassified images, the highest loss first."""
        return self.ids[self._mistaken()]

    def _by_loss(self) -> np.ndarray:
        return np.argsort(-self.losses, kind="stable")

    def _mistaken(self) -> np.ndarray:
        order = self._by_loss()
        return order[(self.predicted != self.labels)[order]]

    def _predictions(self, order: np.ndarray) -> list[Prediction]:
        predicted = self.predicted
        return [
            Prediction(
                self.loader.dataset.paths[int(self.ids[n])],
                self.classes[self.labels[n]],
                self.classes[predicted[n]],
                float(self.losses[n]),
                float(self.probabilities[n, predicted[n]]),
            )
            for n in order.tolist()
        ]

    def per_class(self) -> list[dict[str, Any]]:
        """Name, number of images, precision and recall of each class.

        Precision is NaN for a class that was never predicted, recall for one without images.
        """
        matrix = self.confusion_matrix()
        hits, actual, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        with np.errstate(invalid="ignore"):
            precision, recall = hits / predicted, hits / actual
        return [
            {"class": name, "images": int(n), "precision": float(p), "recall": float(r)}
            for name, n, p, r in zip(self.classes, actual, precision, recall, strict=True)
        ]

    def calibration(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean confidence, accuracy and number of images, (NUM_BINS,) each, in equal bins of confidence.

        The confidence is the probability of the predicted class. Confidence and accuracy are NaN in an empty bin.
        """
        confidence, correct = self.probabilities.max(1), self.predicted == self.labels
        bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
        counts = np.bincount(bins, minlength=NUM_BINS)
        with np.errstate(invalid="ignore"):
            means = np.bincount(bins, confidence, NUM_BINS) / counts
            accuracies = np.bincount(bins, correct, NUM_BINS) / counts
        return means, accuracies, counts

    def calibration_error(self) -> float:
        """Expected calibration error (C. Guo et al., ICML 2017): mean |accuracy - confidence| over the images.

        torchmetrics computes it in float32: the seventh digit may differ, and images may fall into other bins.
        """
        means, accuracies, counts = self.calibration()
        return float(np.nansum(np.abs(accuracies - means) * counts) / counts.sum())

    def plot_confusion_matrix(self, file: str | Path | None = None) -> None:
        """Plots the confusion matrix. Names and counts are shown for up to `plots.MAX_NAMED_CLASSES` classes."""
        plots.plot_confusion_matrix(self.confusion_matrix(), self.classes, file)

    def plot_calibration(self, file: str | Path | None = None) -> None:
        """Plots the reliability diagram."""
        plots.plot_calibration(*self.calibration(), self.calibration_error(), file)

    def plot_top_losses(self, k: int = 9, file: str | Path | None = None) -> Image.Image:
        """A grid of the `k` images with the highest losses, with their predictions. A notebook displays it."""
        predictions, pixels = self.top_losses(k), list(self.pixels(self.ids[self._by_loss()[:k]]))
        titles = [f"{p.predicted} {p.probability:.2f}\nactual: {p.actual}\nloss {p.loss:.2f}" for p in predictions]
        image = image_grid(pixels, titles)
        if file is not None:
            image.save(file)
        return image

    def pixels(self, ids: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the images `ids` (M,) as the model sees them in validation, each (H, W, 3) uint8.

        A file that has become unusable since is a grey image.
        """
        batches = usable_batches(self.loader, ids)
        found = ((batch.ids, to_pixels(batch.images, self.loader.preprocessing)) for batch in batches)
        return in_place(found, len(ids), self.loader.preprocessing.size)

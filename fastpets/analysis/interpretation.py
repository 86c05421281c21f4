"""Where a trained model errs: which classes it takes for which, its worst mistakes, and how sure it is of what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastpets.analysis import plots
from fastpets.errors import FastpetsError
from fastpets.training import distributed

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader
    from fastpets.training.learner import Learner

NUM_BINS = 10  # of confidence, for calibration


class Judgement(NamedTuple):
    """A validation image, what it is, what it was taken for, and how surely."""

    path: str
    actual: str
    predicted: str
    loss: float
    probability: float  # of the predicted class


@dataclass(frozen=True, eq=False)
class Interpretation:
    """The predictions on the images of a validation loader.

    `ids` (N,) are items of `loader`, `labels` (N,) what they are; `probabilities` (N, C) and `losses` (N,) are float64.
    """

    loader: Loader
    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray

    @classmethod
    def from_learner(cls, learner: Learner) -> Interpretation:
        """Of all of a learner's validation images, by the weights that it validates."""
        valid = learner.valid
        if distributed.world_size() > 1:
            valid = valid.like(valid.dataset, rank=0, world_size=1)
        return cls.of(
            valid, lambda images: learner.train_step.logits(images, learner.train_step.evaluated_model.eval())
        )

    @classmethod
    def from_run(cls, run: str | Path, device: str = "auto") -> Interpretation:
        """Of a run folder: its data, split as in the run, and the model that it left. Raises FastpetsError."""
        from fastpets.runs.build import build_datasets
        from fastpets.runs.config import read_config
        from fastpets.runs.saved_model import load_run
        from fastpets.utils.device import resolve_device

        folder = Path(run)
        trained = load_run(folder, resolve_device(device))
        _, valid = build_datasets(read_config(folder))
        if valid.classes != trained.classes:
            raise FastpetsError(
                f"{folder}: its data has other classes now than when it was trained; give it those again"
            )
        return cls.of(trained.loader(valid, on_bad_file="skip"), lambda images: trained.model(images).float())

    @classmethod
    @torch.inference_mode()
    def of(cls, loader: Loader, logits_of: Any) -> Interpretation:
        """Of all that a loader gives, by a function from images to logits."""
        found = [(batch.ids, batch.labels, logits_of(batch.images)) for batch in loader]
        ids = np.concatenate([ids for ids, _, _ in found])
        labels = torch.cat([labels for _, labels, _ in found]).cpu()
        log_probabilities = torch.cat([logits for _, _, logits in found]).cpu().double().log_softmax(1)
        losses = -log_probabilities.gather(1, labels[:, None])[:, 0]
        return cls(loader, ids, labels.numpy(), log_probabilities.exp().numpy(), losses.numpy())

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.loader.classes

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image (N,) int64."""
        return self.probabilities.argmax(1)

    def confusion_matrix(self) -> np.ndarray:
        """(C, C) int64: how many of class i were taken for class j."""
        matrix = np.zeros((len(self.classes),) * 2, np.int64)
        np.add.at(matrix, (self.labels, self.predicted), 1)
        return matrix

    def most_confused(self, min_val: int = 1) -> list[tuple[str, str, int]]:
        """Pairs of actual and predicted class that were confused at least so often, the most often first."""
        wrong = self.confusion_matrix()
        np.fill_diagonal(wrong, 0)
        pairs = [(int(wrong[i, j]), int(i), int(j)) for i, j in zip(*np.nonzero(wrong >= max(1, min_val)), strict=True)]
        return [
            (self.classes[i], self.classes[j], count) for count, i, j in sorted(pairs, key=lambda p: (-p[0], p[1:]))
        ]

    def top_losses(self, k: int | None = None) -> list[Judgement]:
        """The images with the highest losses, `k` of them or all, the highest first."""
        return self._judgements(self._by_loss()[:k])

    def mistakes(self) -> list[Judgement]:
        """The images that were taken for something else, the highest loss first."""
        return self._judgements(self._mistaken())

    def mistaken_ids(self) -> np.ndarray:
        """The items (M,) of the mistakes, in the same order."""
        return self.ids[self._mistaken()]

    def _by_loss(self) -> np.ndarray:
        return np.argsort(-self.losses, kind="stable")

    def _mistaken(self) -> np.ndarray:
        order = self._by_loss()
        return order[(self.predicted != self.labels)[order]]

    def _judgements(self, order: np.ndarray) -> list[Judgement]:
        predicted = self.predicted
        return [
            Judgement(
                self.loader.dataset.paths[int(self.ids[n])],
                self.classes[self.labels[n]],
                self.classes[predicted[n]],
                float(self.losses[n]),
                float(self.probabilities[n, predicted[n]]),
            )
            for n in order.tolist()
        ]

    def per_class(self) -> list[dict[str, Any]]:
        """For each class its name, number of images, precision and recall; NaN where nothing is to be divided by."""
        matrix = self.confusion_matrix()
        hits, actual, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        with np.errstate(invalid="ignore"):
            precision, recall = hits / predicted, hits / actual
        return [
            {"class": name, "images": int(n), "precision": float(p), "recall": float(r)}
            for name, n, p, r in zip(self.classes, actual, precision, recall, strict=True)
        ]

    def calibration(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By confidence, in ten equal bins: mean confidence, accuracy, and number of images, (10,) each.

        The confidence is the predicted class's probability; NaN in an empty bin.
        """
        confidence, correct = self.probabilities.max(1), self.predicted == self.labels
        bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
        counts = np.bincount(bins, minlength=NUM_BINS)
        with np.errstate(invalid="ignore"):
            means = np.bincount(bins, confidence, NUM_BINS) / counts
            accuracies = np.bincount(bins, correct, NUM_BINS) / counts
        return means, accuracies, counts

    def calibration_error(self) -> float:
        """The expected calibration error (C. Guo et al., ICML 2017): the mean of |accuracy - confidence|."""
        means, accuracies, counts = self.calibration()
        return float(np.nansum(np.abs(accuracies - means) * counts) / counts.sum())

    def plot_confusion_matrix(self, file: str | Path | None = None) -> None:
        """Draws the confusion matrix; names are left out where they would not be legible."""
        plots.plot_confusion_matrix(self.confusion_matrix(), self.classes, file)

    def plot_calibration(self, file: str | Path | None = None) -> None:
        """Draws the reliability diagram."""
        plots.plot_calibration(*self.calibration(), self.calibration_error(), file)

    def plot_top_losses(self, k: int = 9, file: str | Path | None = None) -> Any:
        """A grid of the images with the highest losses, with what they were taken for; a notebook shows it."""
        from fastpets.loading.display import to_pixels
        from fastpets.utils.figures import image_grid

        judgements, order = self.top_losses(k), self._by_loss()[:k]
        loader = self.loader.like(self.loader.dataset.select(self.ids[order]), batch_size=len(order), shuffle=False)
        titles = [f"{m.predicted} {m.probability:.2f}\nis {m.actual}\nloss {m.loss:.2f}" for m in judgements]
        image = image_grid(to_pixels(next(iter(loader)).images, loader.preprocessing), titles)
        if file is not None:
            image.save(file)
        return image

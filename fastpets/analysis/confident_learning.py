"""Labels that may be wrong, by confident learning (C. Northcutt et al., "Confident Learning", JAIR 2021)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-6  # by which a probability may miss the threshold; as in cleanlab, the authors' library


class Suspects(NamedTuple):
    """Images whose labels may be wrong, the least probable label first.

    Attributes:
        places: their places (M,) int64 among the N images.
        suggested: the classes that the model predicts for them (M,) int64.
    """

    places: np.ndarray
    suggested: np.ndarray


def find_suspects(probabilities: np.ndarray, labels: np.ndarray) -> Suspects:
    """Finds images whose labels (N,) are probably wrong, by predicted probabilities (N, C).

    The probabilities should come from models that were not trained on these images, such as those of cross-validation:
    a model may have learned wrong labels by heart. A class's threshold is its mean probability for the images with its
    label. An image is a suspect if its probability of any class reaches the threshold, and both this class (of several,
    the most probable one of all) and the prediction differ from the label.

    These are cleanlab's `find_label_issues(filter_by="confident_learning")`, in its order.
    """
    predicted = probabilities.argmax(1)
    thresholds = np.full(probabilities.shape[1], np.inf)  # of a class without images, which nothing reaches
    for label in np.unique(labels):
        thresholds[label] = probabilities[labels == label, label].mean()
    is_confident = probabilities >= thresholds - TOLERANCE
    number = is_confident.sum(1)
    confident = np.where(number > 1, predicted, is_confident.argmax(1))
    places = np.flatnonzero((number > 0) & (confident != labels) & (predicted != labels))
    places = places[np.argsort(probabilities[places, labels[places]], kind="stable")]
    return Suspects(places, predicted[places])

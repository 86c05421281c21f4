"""A batch: what the loader yields, in a form that training loops of other libraries can take apart and rebuild."""

from collections import namedtuple
from typing import Any

import numpy as np


class Batch(namedtuple("Batch", ("images", "labels"))):
    """A pair (images, labels), with the item ids of its images as an attribute.

    images (B, 3, H, W) in channels_last layout and labels (B,) int64, both on the loader's device; ids (B,) int64
    NumPy. Libraries rebuild tuples as `Batch(images, labels)` or `Batch(pair)`; ids is None after that.
    """

    ids: Any = None

    def __new__(cls, images: Any, labels: Any = None, ids: np.ndarray | None = None) -> "Batch":
        pair = tuple(images) if labels is None else (images, labels)
        batch = super().__new__(cls, *pair)
        batch.ids = ids
        return batch

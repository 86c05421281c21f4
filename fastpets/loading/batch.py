"""What a Loader yields, in a form that training loops of other libraries can take apart and rebuild."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

_NO_LABELS = object()  # not None, which a batch_transform may return


class _Pair(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor


class Batch(_Pair):
    """A pair of images and labels, with the item ids as an attribute.

    Libraries rebuild tuples as `Batch(images, labels)` or `Batch(pair)`, after which `ids` is None.

    Attributes:
        images: (B, 3, H, W) in channels_last memory format, or (B, H, W, 3) with layout="NHWC", on the Loader's device.
        labels: (B,) int64, on the same device.
        ids: (B,) int64 NumPy array of item ids, or None.
    """

    ids: Any = None

    def __new__(cls, images: Any, labels: Any = _NO_LABELS, ids: np.ndarray | None = None) -> Batch:
        pair = tuple(images) if labels is _NO_LABELS else (images, labels)
        batch = super().__new__(cls, *pair)
        batch.ids = ids
        return batch

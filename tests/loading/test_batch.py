"""Batch: a pair of images and labels that other libraries can take apart and rebuild."""

import numpy as np
import torch

from fastpets.loading.batch import Batch


def test_a_batch_is_rebuilt_from_its_parts_or_from_a_pair() -> None:
    images, labels = torch.zeros(2, 3, 4, 4), torch.arange(2)
    batch = Batch(images, labels, np.arange(2))
    for rebuilt in (type(batch)(*batch), type(batch)(tuple(batch))):
        assert rebuilt.images is images
        assert rebuilt.labels is labels
        assert rebuilt.ids is None


def test_a_batch_transform_may_return_no_labels() -> None:
    images = torch.zeros(2, 3, 4, 4)
    assert tuple(Batch(images, None, np.arange(2))) == (images, None)

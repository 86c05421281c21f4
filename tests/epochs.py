"""An epoch's images by item id, and their comparison."""

import torch

from fastpets import Loader


def pixels_by_id(loader: Loader) -> dict[int, torch.Tensor]:
    """Runs one epoch and returns its images by item id."""
    return {int(i): image for batch in loader for i, image in zip(batch.ids, batch.images, strict=True)}


def same(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> bool:
    """Whether two epochs have the same ids and, bit for bit, the same images."""
    return one.keys() == other.keys() and all(torch.equal(one[i], other[i]) for i in one)

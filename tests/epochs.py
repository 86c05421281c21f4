"""What the tests look at in an epoch: each item's image."""

import torch

from fastpets import Loader


def pixels_by_id(loader: Loader) -> dict[int, torch.Tensor]:
    """One epoch's images by item id."""
    return {int(i): image for batch in loader for i, image in zip(batch.ids, batch.images, strict=True)}


def same(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[i], other[i]) for i in one)

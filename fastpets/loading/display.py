"""Batches turned back into images to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from fastpets.augment.preprocessing import Preprocessing
from fastpets.loading.batch import Batch
from fastpets.utils.figures import image_grid

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader

GREY = 128


def to_pixels(images: torch.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Undoes normalisation and layout: a batch's images as (B, H, W, 3) uint8."""
    pixels = images if preprocessing.layout == "NHWC" else images.permute(0, 2, 3, 1)
    if preprocessing.output == "uint8":
        return pixels.cpu().numpy()
    mean, std = (torch.tensor(values, device=images.device) for values in (preprocessing.mean, preprocessing.std))
    return ((pixels.float() * std + mean) * 255).round().clamp(0, 255).byte().cpu().numpy()


def usable_batches(loader: Loader, ids: np.ndarray) -> Iterator[Batch]:
    """Batches of the images `ids` (M,), unaugmented and in order, but those that cannot be used.

    Their `ids` are places in `ids`.
    """
    chosen = loader.dataset.select(ids)
    assert chosen.headers is not None
    if chosen.headers.usable.any():
        yield from loader.like(chosen, augment=False, on_bad_file="skip", rank=0, world_size=1)


def in_place(found: Iterable[tuple[np.ndarray, np.ndarray]], count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yields `count` images (H, W, 3) uint8: those found at ascending places (B,), and grey ones in all others."""
    next_place = 0
    for places, images in found:
        for place, image in zip(places.tolist(), images, strict=True):
            yield from (np.full((*size, 3), GREY, np.uint8) for _ in range(next_place, place))
            yield image
            next_place = place + 1
    yield from (np.full((*size, 3), GREY, np.uint8) for _ in range(next_place, count))


def batch_grid(batch: Batch, classes: Sequence[str], preprocessing: Preprocessing, num_images: int) -> Image.Image:
    """Returns a grid of a batch's first images, each titled with its class."""
    labels = batch.labels[:num_images]
    if labels.ndim == 2:  # shares of mixed images
        labels = labels.argmax(1)
    names = [classes[label] if label >= 0 else "" for label in labels.tolist()]
    return image_grid(to_pixels(batch.images[:num_images], preprocessing), names)

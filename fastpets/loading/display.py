"""Batches as images that people can look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from fastpets.augment.preprocessing import Preprocessing
from fastpets.utils.figures import image_grid

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader


def to_pixels(images: torch.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """A loader's images as pixels (B, H, W, 3) uint8, 0-255: the inverse of its normalisation and layout."""
    pixels = images if preprocessing.layout == "NHWC" else images.permute(0, 2, 3, 1)
    if preprocessing.output == "uint8":
        return pixels.cpu().numpy()
    mean, std = (torch.tensor(values, device=images.device) for values in (preprocessing.mean, preprocessing.std))
    return ((pixels.float() * std + mean) * 255).round().clamp(0, 255).byte().cpu().numpy()


def batch_grid(loader: Loader, num_images: int) -> Image.Image:
    """A grid of the first images of a loader's next batch, titled with their classes; the loader does not advance."""
    images, labels = loader.peek()
    names = [loader.classes[label] if label >= 0 else "" for label in labels[:num_images].tolist()]
    return image_grid(to_pixels(images[:num_images], loader.preprocessing), names)

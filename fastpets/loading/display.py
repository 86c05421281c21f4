"""Batches turned back into images to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from fastpets.augment.preprocessing import Preprocessing
from fastpets.loading.batch import Batch
from fastpets.utils.figures import image_grid


def to_pixels(images: torch.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Undoes normalisation and layout: a batch's images as (B, H, W, 3) uint8."""
    pixels = images if preprocessing.layout == "NHWC" else images.permute(0, 2, 3, 1)
    if preprocessing.output == "uint8":
        return pixels.cpu().numpy()
    mean, std = (torch.tensor(values, device=images.device) for values in (preprocessing.mean, preprocessing.std))
    return ((pixels.float() * std + mean) * 255).round().clamp(0, 255).byte().cpu().numpy()


def batch_grid(batch: Batch, classes: Sequence[str], preprocessing: Preprocessing, num_images: int) -> Image.Image:
    """Returns a grid of a batch's first images, each titled with its class."""
    names = [classes[label] if label >= 0 else "" for label in batch.labels[:num_images].tolist()]
    return image_grid(to_pixels(batch.images[:num_images], preprocessing), names)

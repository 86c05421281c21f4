"""Synthetic test images, and their encoding."""

import io
from typing import Any

import numpy as np
from PIL import Image


def drawing(height: int, width: int, seed: int = 0) -> Image.Image:
    """Returns an image with smooth gradients and sharp edges, different for each seed."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    waves = np.stack([np.sin(9 * rows + phase) + np.cos(7 * columns * (phase + 1)) for phase in random.random(3)], -1)
    pixels = 127 + 50 * waves + 25 * ((columns + rows) % 0.2 < 0.1)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(pixels: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    """Returns the bytes of a file, as Pillow saves it in a format ("JPEG", "PNG", ...) with its options."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()

"""From a path to encoded bytes that are safe to decode: read, parsed, and passed through Pillow where need be."""

import io

import numpy as np
from PIL import Image, ImageOps

from fastpets import pipelines
from fastpets.data import storage
from fastpets.data.headers import DALI


class UnusableImage(Exception):
    """This file cannot be used; the message says what was found."""


def read_encoded(path: str, kind: int, height: int, width: int) -> np.ndarray:
    """A file's bytes (uint8, 1-D), in a format that DALI decodes to the upright (height, width) of the headers.

    Raises UnusableImage: the file is gone, no image, or not the one that the headers knows.
    """
    try:
        encoded = storage.read(path)
    except OSError as error:
        raise UnusableImage(f"unreadable ({error.strerror or error})") from None
    try:
        size = pipelines.parse(encoded) if kind == DALI else None
    except pipelines.Unparsable:
        size = None  # such as WebP without loss but with EXIF
    by_pillow = size is None
    if size is None:
        size = _size_by_pillow(encoded)
    if sorted(size) != sorted((height, width)):  # by EXIF, the stored sides may be the upright ones swapped
        raise UnusableImage(f"{size[1]} x {size[0]} px, expected {width} x {height}: it changed since the scan")
    return np.frombuffer(_as_bmp(encoded) if by_pillow else encoded, np.uint8)


def pillow_rgb(encoded: bytes) -> Image.Image:
    """An image as Pillow shows it: the first frame, upright, 8-bit RGB; alpha is dropped, 16 bits are scaled to 8."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    image.info.pop("transparency", None)  # else convert() may warn that it drops it
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        values = np.asarray(image).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    return image.convert("RGB")


def _size_by_pillow(encoded: bytes) -> tuple[int, int]:
    """(height, width) of an image as it is stored, without decoding it."""
    try:
        width, height = Image.open(io.BytesIO(encoded)).size
    except Exception as error:  # Pillow's readers meet any bytes, and fail in any way
        raise _refused_by_pillow(error) from None
    return height, width


def _as_bmp(encoded: bytes) -> bytes:
    """An image decoded by Pillow as an uncompressed BMP file."""
    file = io.BytesIO()
    try:
        pillow_rgb(encoded).save(file, "BMP")
    except Exception as error:
        raise _refused_by_pillow(error) from None
    return file.getvalue()


def _refused_by_pillow(error: Exception) -> UnusableImage:
    return UnusableImage(f"not decoded by Pillow ({type(error).__name__}: {error})")

"""From a path to encoded bytes that are safe to decode: read, parsed, and passed through Pillow where need be."""

import io

import numpy as np
from PIL import Image, ImageOps

from fastpets import files, pipelines
from fastpets.manifest import DALI


class UnusablePicture(Exception):
    """This file cannot be used; the message says what was found."""


def read_encoded(path: str, kind: int, height: int, width: int) -> np.ndarray:
    """A file's bytes (uint8, 1-D), in a format that DALI decodes to the upright (height, width) of the manifest.

    Raises UnusablePicture: the file is gone, no picture, or not the one that the manifest knows.
    """
    try:
        encoded = files.read(path)
    except OSError as error:
        raise UnusablePicture(f"unreadable ({error.strerror or error})") from None
    try:
        size = pipelines.parse(encoded) if kind == DALI else None
    except pipelines.Unparsable:
        size = None  # such as WebP without loss but with EXIF
    by_pillow = size is None
    if size is None:
        size = _size_by_pillow(encoded)
    if sorted(size) != sorted((height, width)):  # by EXIF, the stored sides may be the upright ones swapped
        raise UnusablePicture(f"{size[1]} x {size[0]} px, expected {width} x {height}: it changed since the scan")
    return np.frombuffer(_as_bmp(encoded) if by_pillow else encoded, np.uint8)


def pillow_rgb(encoded: bytes) -> Image.Image:
    """A picture as Pillow shows it: the first frame, upright, 8-bit RGB; alpha is dropped, 16 bits are scaled to 8."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    picture.info.pop("transparency", None)  # else convert() may warn that it drops it
    if picture.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        values = np.asarray(picture).clip(0, 65535)
        picture = Image.fromarray(np.round(values / 257).astype(np.uint8))
    return picture.convert("RGB")


def _size_by_pillow(encoded: bytes) -> tuple[int, int]:
    """(height, width) of a picture as it is stored, without decoding it."""
    try:
        width, height = Image.open(io.BytesIO(encoded)).size
    except Exception as error:  # Pillow's readers meet any bytes, and fail in any way
        raise _refused_by_pillow(error) from None
    return height, width


def _as_bmp(encoded: bytes) -> bytes:
    """A picture decoded by Pillow as an uncompressed BMP file."""
    file = io.BytesIO()
    try:
        pillow_rgb(encoded).save(file, "BMP")
    except Exception as error:
        raise _refused_by_pillow(error) from None
    return file.getvalue()


def _refused_by_pillow(error: Exception) -> UnusablePicture:
    return UnusablePicture(f"not decoded by Pillow ({type(error).__name__}: {error})")

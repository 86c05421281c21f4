"""Reads images with Pillow, the reference for all other decoders."""

import contextlib
import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Tags of TIFF 6.0, and values of SampleFormat.
BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339
MIN_AND_MAX_TAGS = ((340, 341), (280, 281))
UNSIGNED, SIGNED = 1, 2
FIRST_TURNED = 5  # from this EXIF orientation on, height and width are exchanged in storage


def decode_rgb(encoded: bytes) -> Image.Image:
    """Decodes the first frame of an image, upright, as 8-bit RGB.

    Alpha is dropped. Values of more than 8 bits are scaled from their `full_range`, which Pillow would clip at 255.
    Pillow may raise errors of any type on damaged bytes.
    """
    return _upright_rgb(Image.open(io.BytesIO(encoded)))


def decode_stored_rgb(encoded: bytes | memoryview) -> Image.Image:
    """Decodes as `decode_rgb` does, but leaves the pixels as they are stored: `orientation` is not applied."""
    return _as_rgb(Image.open(io.BytesIO(encoded)))


def encode(image: Image.Image) -> bytes:
    """The bytes of a file that decodes to what `decode_rgb` would make of the file from which Pillow read the image."""
    file, info = io.BytesIO(), dict(image.info)
    try:
        _upright_rgb(image).save(file, "BMP")
    finally:
        image.info = info
    return file.getvalue()


def orientation(image: Image.Image) -> int:
    """How an image that was opened by Pillow is stored: EXIF's number, 1 (upright) to 8.

    Pillow finds it in EXIF, XMP and text chunks. TIFF counts as upright, since Pillow turns its pixels on loading.
    """
    if image.format == "TIFF":
        return 1
    with contextlib.suppress(Exception):  # unreadable metadata, with errors of any type: as without an orientation
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        if found in range(1, 9):
            return int(found)
    return 1


def is_deep(image: Image.Image) -> bool:
    """Whether an image that was opened by Pillow has one channel of more than 8 bits: modes I, I;16 and F."""
    return image.mode.startswith(("I", "F"))


def full_range(image: Image.Image) -> tuple[float, float]:
    """The values of a deep image that are shown black and white.

    A TIFF's tags MinSampleValue and MaxSampleValue, or SMinSampleValue and SMaxSampleValue, say so. Without them, black
    is 0, and white is 1 for floating-point numbers, and the highest number of the file's bits for integers.
    """
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(BITS_PER_SAMPLE, (16,)))
    is_signed = tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == SIGNED
    white = 1.0 if image.mode == "F" else 2.0 ** (bits - is_signed) - 1
    for lowest, highest in MIN_AND_MAX_TAGS:
        stated_black, stated_white = _number(tags.get(lowest, 0)), _number(tags.get(highest))
        if stated_black < stated_white:  # both are numbers
            return stated_black, stated_white
    return 0.0, white


def values(image: Image.Image) -> np.ndarray:
    """The values of a deep image (H, W)."""
    array = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED and BITS_PER_SAMPLE in tags:
        return array.view(np.uint32)  # Pillow's mode I is signed
    return array


def _number(value: Any) -> float:
    """A tag's value, or the first of several; NaN if it is no finite number."""
    with contextlib.suppress(TypeError, ValueError, ArithmeticError):
        number = float(value[0] if isinstance(value, tuple) else value)
        return number if np.isfinite(number) else np.nan
    return np.nan


def _upright_rgb(opened: Image.Image) -> Image.Image:
    image = _as_rgb(opened)
    image.info = {}  # exif_transpose would also write the other metadata anew, which fails if they are damaged
    image.getexif()[ExifTags.Base.Orientation] = orientation(opened)
    return ImageOps.exif_transpose(image)


def _as_rgb(image: Image.Image) -> Image.Image:
    image.load()  # which may change the mode, as of an icon
    image.info.pop("transparency", None)  # convert() may warn about it
    if is_deep(image):
        black, white = full_range(image)
        scaled = (values(image).astype(np.float64) - black) * (255 / (white - black))
        image = Image.fromarray(np.round(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8))
    return image.convert("RGB")

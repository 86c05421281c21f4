"""Reads images with Pillow, the reference for all other decoders."""

import contextlib
import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

FIRST_TURNED = 5  # from this EXIF orientation on, height and width are exchanged in storage


def decode_rgb(encoded: bytes) -> Image.Image:
    """Decodes the first frame of an image, upright, as 8-bit RGB. Alpha is dropped; 16-bit grey is scaled to 8 bits.

    Pillow may raise errors of any type on damaged bytes.
    """
    return _as_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))


def decode_stored_rgb(encoded: bytes | memoryview) -> Image.Image:
    """Decodes as `decode_rgb` does, but leaves the pixels as they are stored: `orientation` is not applied."""
    return _as_rgb(Image.open(io.BytesIO(encoded)))


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


def _as_rgb(image: Image.Image) -> Image.Image:
    image.info.pop("transparency", None)  # convert() may warn about it
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        values = np.asarray(image).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    return image.convert("RGB")

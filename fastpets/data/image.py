"""Decodes images with Pillow, the reference for all other decoders."""

import io

import numpy as np
from PIL import Image, ImageOps


def decode_rgb(encoded: bytes) -> Image.Image:
    """Decodes the first frame of an image, upright, as 8-bit RGB. Alpha is dropped; 16-bit grey is scaled to 8 bits.

    Pillow may raise errors of any type on damaged bytes.
    """
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    image.info.pop("transparency", None)  # convert() may warn about it
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        values = np.asarray(image).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    return image.convert("RGB")

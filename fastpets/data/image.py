"""What an image is: what Pillow makes of a file's bytes. Every other decoder is held to it."""

import io

import numpy as np
from PIL import Image, ImageOps


def decode_rgb(encoded: bytes) -> Image.Image:
    """Decodes the first frame of an image, upright, as 8-bit RGB. Raises what Pillow raises on damaged bytes.

    Alpha is dropped; 16-bit grey is scaled to 8 bits.
    """
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    image.info.pop("transparency", None)  # else convert() may warn that it drops it
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        values = np.asarray(image).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    return image.convert("RGB")

"""Reads and decodes one image on a CPU, in the calling thread, into memory that is given."""

from __future__ import annotations

import numpy as np
import simplejpeg

from fastpets.data import storage
from fastpets.data.image import decode_stored_rgb
from fastpets.loading.bad_files import UnusableImageError

JPEG = b"\xff\xd8"  # the first bytes of a JPEG
COLORSPACES = ("Gray", "YCbCr", "RGB")  # others are Pillow's to convert


def load_into(out: np.ndarray, path: str) -> None:
    """Reads a file and decodes it as `decode_into` does. Raises UnusableImageError, also if it cannot be read."""
    try:
        encoded = storage.read(path)
    except OSError as error:
        raise UnusableImageError(f"unreadable ({error.strerror or error})") from None
    decode_into(out, encoded)


def decode_into(out: np.ndarray, encoded: bytes) -> None:
    """Decodes an image as it is stored into `out` (H, W, 3) uint8, with the pixels that Pillow gives.

    JPEGs are decoded by libjpeg-turbo, all else and what it rejects by Pillow. Raises UnusableImageError if Pillow
    rejects it, too, and for an image of another size.
    """
    if encoded.startswith(JPEG):
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
            if colorspace in COLORSPACES:
                _check_size((height, width), out)
                simplejpeg.decode_jpeg(encoded, "RGB", buffer=out)
                return
        except ValueError:
            pass  # Pillow accepts some damage
    try:
        image = decode_stored_rgb(encoded)
    except Exception as error:  # Pillow's plugins raise anything on damaged bytes
        raise UnusableImageError(f"not decoded by Pillow ({type(error).__name__}: {error})") from None
    _check_size((image.height, image.width), out)
    out[:] = image


def _check_size(size: tuple[int, int], out: np.ndarray) -> None:
    if size != out.shape[:2]:
        found, expected = f"{size[1]} x {size[0]} px", f"{out.shape[1]} x {out.shape[0]}"
        raise UnusableImageError(f"{found}, expected {expected}: the file changed after its header was read")

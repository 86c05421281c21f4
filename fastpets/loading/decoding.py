"""Reads, decodes and shrinks one image on a CPU, in the calling thread, in memory that it reuses."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import simplejpeg

from fastpets.data import jpeg, storage
from fastpets.data.image import decode_stored_rgb
from fastpets.errors import reason
from fastpets.kernels.shrink_cpu import shrink_into
from fastpets.loading.bad_files import ChangedImageError, UnusableImageError
from fastpets.utils.validation import Decode

COLORSPACES = ("Gray", "YCbCr", "RGB")  # others are Pillow's to convert
SMALLEST_SCALE = 8  # "fast" decodes at 1/2, 1/4 or 1/8; libjpeg-turbo's other scales are slow
MAX_SCRATCH_BYTES = 2**27  # a thread keeps no larger buffer from one image to the next


class Buffer:
    """Memory for one image at a time, which the next image overwrites."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def image(self, height: int, width: int) -> np.ndarray:
        """Uninitialised pixels (height, width, 3) uint8, valid until the next call."""
        num_bytes = 3 * height * width
        memory = self._memory
        if num_bytes > len(memory):
            memory = np.empty(num_bytes, np.uint8)
            if num_bytes <= MAX_SCRATCH_BYTES:
                self._memory = memory
        return memory[:num_bytes].reshape(height, width, 3)


class Scratch(threading.local):
    """Each thread's own memory for the image that it works on."""

    def __init__(self) -> None:
        self.decoded, self.shrunk = Buffer(), Buffer()


def load(path: str, size: tuple[int, int], factors: Sequence[int], scratch: Scratch, mode: Decode) -> np.ndarray:
    """Reads a file and decodes it to the pixels that Pillow gives, as they are stored, shrunk by whole `factors`.

    JPEGs are decoded by libjpeg-turbo, all else and what it rejects by Pillow. Shrinking maps each block of pixels to
    its mean; but where both factors are even, `mode` "fast" has libjpeg-turbo decode JPEGs at 1/2, 1/4 or 1/8 of their
    size, which differs a little from means.

    Args:
        path: of the file.
        size: the height H and width W that the image must have as it is stored.
        factors: by which height and width are divided.
        scratch: has the memory of the result, which is valid until the next call in this thread.
        mode: "exact" or "fast".

    Returns (H // factors[0], W // factors[1], 3) uint8. Raises UnusableImageError if the file cannot be read or
    decoded, and for an image of another size.
    """
    try:
        encoded = storage.read(path)
    except OSError as error:
        raise UnusableImageError(f"unreadable ({reason(error)})") from None
    by_height, by_width = factors
    image, scale = _decode(encoded, size, math.gcd(SMALLEST_SCALE, *factors) if mode == "fast" else 1, scratch.decoded)
    shrunk_size = size[0] // by_height, size[1] // by_width
    if image.shape[:2] == shrunk_size:
        return image
    # libjpeg-turbo rounds a scaled size up. Only whole blocks are shrunk, which are those of the stored image.
    shrunk = scratch.shrunk.image(*shrunk_size)
    shrink_into(shrunk, image, by_height // scale, by_width // scale)
    return shrunk


def _decode(encoded: bytes, size: tuple[int, int], scale: int, buffer: Buffer) -> tuple[np.ndarray, int]:
    """Decodes an image at 1 / `scale` of its size, rounded up, or whole: the image, and the scale that it has."""
    if encoded.startswith(jpeg.START):
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
            if colorspace in COLORSPACES:
                _check_size((height, width), size)
                rows, columns = -(-height // scale), -(-width // scale)
                out = buffer.image(rows, columns)
                # The smallest scaled size that is no smaller than these minima: exactly 1 / scale.
                simplejpeg.decode_jpeg(encoded, "RGB", min_height=rows, min_width=columns, min_factor=scale, buffer=out)
                return out, scale
        except ValueError:
            pass  # Pillow accepts some damage
    try:
        image = decode_stored_rgb(encoded)
    except Exception as error:  # Pillow's plugins raise anything on damaged bytes
        raise UnusableImageError(f"not decoded by Pillow ({type(error).__name__}: {error})") from None
    _check_size((image.height, image.width), size)
    out = buffer.image(*size)
    out[:] = image
    return out, 1


def _check_size(found: tuple[int, int], expected: tuple[int, int]) -> None:
    if found != expected:
        raise ChangedImageError(found, expected)

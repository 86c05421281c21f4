"""Checks encoded images before they reach the decoder, by nvImageCodec's own parser."""

import numpy as np
from nvidia import nvimgcodec

PNG = b"\x89PNG\r\n\x1a\n"


class ParseError(Exception):
    """The bytes are not an image that nvImageCodec, DALI's decoder, can parse."""


def parse(encoded: bytes | np.ndarray) -> tuple[int, int]:
    """Returns the stored (height, width) of an encoded image, before EXIF orientation. Raises ParseError.

    Bytes that fail here crash the process if they are decoded in a batch: a GIF, a text or an empty file among 64 did
    so 18 of 18 times. The parser is lazy and raises only when properties are read. A file takes 3 us (Zen 5).
    """
    content = memoryview(encoded) if isinstance(encoded, bytes) else encoded.data
    if content[: len(PNG)] == PNG and not _chunks_fit(content):
        raise ParseError("a PNG chunk longer than the file")
    try:
        stream = nvimgcodec.CodeStream(encoded)
        size = stream.height, stream.width
        stream.num_channels, stream.dtype  # noqa: B018
    except (RuntimeError, ValueError, TypeError) as error:
        raise ParseError(str(error)) from None
    return size


def _chunks_fit(png: memoryview) -> bool:
    """Whether all chunks of a PNG, by their declared lengths, are within the file.

    The decoder allocates a chunk's declared length before it reads the chunk: up to 4 GiB for a file of 330 bytes.
    """
    offset, kind = len(PNG), memoryview(b"")
    while kind != b"IEND" and offset + 8 <= len(png):  # bytes after IEND are not read by the decoder
        length, kind = int.from_bytes(png[offset : offset + 4], "big"), png[offset + 4 : offset + 8]
        offset += 12 + length
    return offset <= len(png)

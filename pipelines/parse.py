"""The check that stands before the decoder: no byte that its own parser refuses goes in."""

from nvidia import nvimgcodec


class Unparsable(Exception):
    """nvImageCodec, DALI's decoder, does not find a picture in these bytes."""


def parse(encoded: bytes) -> tuple[int, int]:
    """The stored (height, width) of an encoded picture, before any turn by EXIF. Raises Unparsable.

    Streams that fail here crashed the process when they were decoded in a batch (a GIF, a text or an empty file
    among 64: 18 of 18 times). The parser is lazy: it is the reading of the properties that checks. 8 us a file.
    """
    try:
        stream = nvimgcodec.CodeStream(encoded)
        size = stream.height, stream.width
        stream.num_channels, stream.dtype  # noqa: B018
    except (RuntimeError, ValueError, TypeError) as error:
        raise Unparsable(str(error)) from None
    return size

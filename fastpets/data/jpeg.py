"""Finds damaged JPEGs by their markers alone: decoders differ in what damage they accept."""

from __future__ import annotations

import numpy as np
import simplejpeg

START = b"\xff\xd8"  # the first bytes of a JPEG
END, SCAN = 0xD9, 0xDA
# What may follow a scan: another scan, tables (Huffman, quantization, arithmetic, restart interval), the number of
# lines, application data, a comment.
SEGMENTS = frozenset({SCAN, 0xC4, 0xDB, 0xCC, 0xDD, 0xDC, 0xFE, *range(0xE0, 0xF0)})
# Whether 0xFF and this byte are a marker in the data of a scan. 0 says that 0xFF is data itself, 0xD0-0xD7 are restart
# markers, and 0xFF fills up.
IS_MARKER = np.ones(256, bool)
IS_MARKER[[0, *range(0xD0, 0xD8), 0xFF]] = False


def is_damaged(encoded: np.ndarray) -> bool:
    """Whether the bytes (n,) uint8 are a JPEG, and not one with a valid header and valid markers up to the end marker.

    A file that was cut short is damaged, and bytes after the end marker are not. Damage within the data of a scan that
    makes no marker is not found: all decoders use such a file. 110 kB take 36 us (AMD EPYC).
    """
    if encoded[: len(START)].tobytes() != START:
        return False
    try:
        simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return True
    start = _first_scan(encoded)
    markers = start + np.flatnonzero(encoded[start:-1] == 0xFF)
    markers = markers[IS_MARKER[encoded[markers + 1]]]
    for marker in markers.tolist():
        if marker < start:  # within the segment before
            continue
        kind = int(encoded[marker + 1])
        if kind not in SEGMENTS:
            return kind != END
        start = _segment_end(encoded, marker)
    return True


def _first_scan(encoded: np.ndarray) -> int:
    """Where the first scan's segment begins, in a header that libjpeg-turbo accepts; else the end."""
    at = len(START)
    while at + 4 <= len(encoded):
        kind = int(encoded[at + 1])
        if encoded[at] != 0xFF or kind == 0xFF:  # libjpeg passes over bytes that are no marker
            at += 1
        elif kind == SCAN:
            return at
        else:
            at = _segment_end(encoded, at)
    return len(encoded)


def _segment_end(encoded: np.ndarray, marker: int) -> int:
    return marker + 2 + int.from_bytes(encoded[marker + 2 : marker + 4].tobytes(), "big")

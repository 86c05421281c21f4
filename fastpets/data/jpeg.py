"""Finds damaged JPEGs by their markers alone: decoders differ in what damage they accept."""

from __future__ import annotations

import numpy as np
import simplejpeg

from fastpets.utils.compiled import compilable, compiled

START = b"\xff\xd8"  # the first bytes of a JPEG
END, SCAN = 0xD9, 0xDA
# What may follow a scan: another scan, tables (Huffman, quantization, arithmetic, restart interval), the number of
# lines, application data, a comment.
IS_SEGMENT = np.zeros(256, bool)
IS_SEGMENT[[SCAN, 0xC4, 0xDB, 0xCC, 0xDD, 0xDC, 0xFE, *range(0xE0, 0xF0)]] = True
BLOCK = 1024  # bytes that are searched for any marker at once


def is_damaged(encoded: np.ndarray) -> bool:
    """Whether the bytes (n,) uint8 are a JPEG, and not one with a valid header and valid markers up to the end marker.

    A file that was cut short is damaged, and bytes after the end marker are not. Damage within the data of a scan that
    makes no marker is not found: all decoders use such a file. 110 kB take 7 us, 1 of them with the GIL (AMD EPYC).
    """
    if encoded[: len(START)].tobytes() != START:
        return False
    try:
        simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return True
    return not _has_all_markers(encoded)


@compiled
def _has_all_markers(encoded: np.ndarray) -> bool:
    """Whether only segments follow the data of each scan, and then the end marker. libjpeg accepts the header."""
    marker = _first_scan(encoded)
    while marker + 4 <= len(encoded) and IS_SEGMENT[encoded[marker + 1]]:
        marker = _next_marker(encoded, _segment_end(encoded, marker))
    return marker + 2 <= len(encoded) and encoded[marker + 1] == END


@compilable
def _first_scan(encoded: np.ndarray) -> int:
    """Where the first scan's segment begins; else the end."""
    at = len(START)
    while at + 4 <= len(encoded):
        kind = encoded[at + 1]
        if encoded[at] != 0xFF or kind == 0xFF:  # libjpeg passes over bytes that are no marker
            at += 1
        elif kind == SCAN:
            return at
        else:
            at = _segment_end(encoded, at)
    return len(encoded)


@compilable
def _next_marker(encoded: np.ndarray, start: int) -> int:
    """Where the first marker from `start` begins; else the end.

    A loop that ends at a marker takes a byte at a time. One that does not end early is vectorised: 30 times as fast.
    """
    for first in range(start, len(encoded) - 1, BLOCK):
        block, following = encoded[first : first + BLOCK], encoded[first + 1 : first + 1 + BLOCK]
        has_marker = False
        for i in range(min(len(block), len(following))):
            has_marker |= _is_marker(block[i], following[i])
        if has_marker:
            for i in range(len(following)):
                if _is_marker(block[i], following[i]):
                    return first + i
    return len(encoded)


@compilable
def _is_marker(byte: int, following: int) -> bool:
    """Whether two bytes in the data of a scan are a marker.

    After 0xFF, 0 says that 0xFF is data itself, 0xD0-0xD7 are restart markers, and 0xFF fills up.
    """
    return (byte == 0xFF) & (following != 0) & (following != 0xFF) & ((following < 0xD0) | (following > 0xD7))


@compilable
def _segment_end(encoded: np.ndarray, marker: int) -> int:
    return marker + 2 + 256 * int(encoded[marker + 2]) + int(encoded[marker + 3])

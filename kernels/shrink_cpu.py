"""`shrink` on a CPU, compiled by numba: 12 megapixels shrunk by 4 x 4 take 8 ms (Xeon, one thread)."""

import numba
import numpy as np
import torch


def shrink(image: torch.Tensor, by_height: int, by_width: int) -> torch.Tensor:
    """Implements `kernels.shrink` on the calling thread, without holding the GIL."""
    out = torch.empty(image.shape[0] // by_height, image.shape[1] // by_width, 3, dtype=torch.uint8)
    shrink_into(out.numpy(), image.numpy(), by_height, by_width)
    return out


def shrink_into(out: np.ndarray, image: np.ndarray, by_height: int, by_width: int) -> None:
    """Shrinks an image (H, W, 3) uint8 into `out` (H // by_height, W // by_width, 3), as `shrink` does."""
    _shrink(image.reshape(image.shape[0], -1), by_height, by_width, out)


@numba.njit(nogil=True)
def _shrink(rows: np.ndarray, by_height: int, by_width: int, out: np.ndarray) -> None:
    """Writes block means into out, from rows (H, 3 * W).

    Sums and means are computed at every byte, though only those at block starts are kept: loops of unit stride
    vectorise, which makes them twice as fast.
    """
    num_bytes = rows.shape[1]
    num_sums = num_bytes - 3 * (by_width - 1)
    columns, sums = np.empty(num_bytes, np.int32), np.empty(num_sums, np.int32)
    means = np.empty(num_sums, np.uint8)
    share = np.float32(1 / (by_height * by_width))
    for row in range(out.shape[0]):
        columns[:] = 0
        for line in rows[row * by_height : (row + 1) * by_height]:
            for i in range(num_bytes):
                columns[i] += line[i]
        sums[:] = 0
        for pixel in range(by_width):
            shifted = columns[3 * pixel : 3 * pixel + num_sums]
            for i in range(num_sums):
                sums[i] += shifted[i]
        for i in range(num_sums):
            means[i] = np.int32(np.rint(np.float32(sums[i]) * share))
        for column in range(out.shape[1]):
            first = 3 * column * by_width
            for channel in range(3):
                out[row, column, channel] = means[first + channel]

"""Homographies of presizing and augmentation, and how finely an image must be sampled to avoid aliasing.

Frames and directions are those of `transforms.py`. Parameters are (B,), matrices (B, 3, 3) float64. The canvas is
[-1, 1] on both axes whatever its `aspect` (width / height); rotation and shear correct for it.
"""

from collections.abc import Sequence

import numpy as np

from fastpets.utils.validation import PresizeMethod

PIXELS_PER_SAMPLE = 2  # bilinear samples read 2 x 2 pixels: up to two pixels apart, they miss none
MOST_PIXELS = 4  # image pixels per output pixel and axis, beyond which an image is shrunk first
MOST_SAMPLES = 16  # per output pixel and axis; only a perspective that nears its horizon needs more
BLUR = 0.85  # variance of bilinear sampling, in square pixels / 12: fitted in bench/bench_fidelity.py


def presized(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], method: PresizeMethod, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Returns image_from_canvas (B, 3, 3): the part of an image that is kept, at `x` and `y` (0-1) of the room to move.

    `crop` keeps the largest part that has the output's aspect ratio, `pad` the whole image and what lies beyond its
    borders, `squish` the whole image, distorted.
    """
    canvas_h, canvas_w = canvas_sizes(heights, widths, size, method)
    left, top = x * (widths - canvas_w), y * (heights - canvas_h)
    return matrices([[canvas_w / 2, 0, left + canvas_w / 2], [0, canvas_h / 2, top + canvas_h / 2], [0, 0, 1]])


def canvas_sizes(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], method: PresizeMethod
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the canvas's height and width (B,) in pixels of the image."""
    if method == "squish":
        return heights, widths
    pixels = (np.minimum if method == "crop" else np.maximum)(heights / size[0], widths / size[1])
    return size[0] * pixels, size[1] * pixels


def shrink_factors(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], presize: int | None, method: PresizeMethod
) -> np.ndarray:
    """Returns whole factors (B, 2) int64 by which height and width are divided before sampling, block by block.

    They are the smallest after which the canvas is at most MOST_PIXELS times the output, or `presize` on its shorter
    side. Most images have 1 and stay as they were decoded.
    """
    most = MOST_PIXELS if presize is None else presize / min(size)
    canvas = np.stack(canvas_sizes(heights, widths, size, method), axis=-1)
    factors = np.ceil(canvas / size / most - 1e-9).astype(np.int64)
    return np.minimum(factors, np.stack([heights, widths], axis=-1)).clip(min=1)  # bad files have 0 pixels


def shrunk_sizes(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], presize: int | None, method: PresizeMethod
) -> np.ndarray:
    """Returns height and width (B, 2) of the images after shrinking."""
    return np.stack([heights, widths], axis=-1) // shrink_factors(heights, widths, size, presize, method)


def sampling(
    source_from_output: np.ndarray, size: tuple[int, int], supersample: int, shrink: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns k (B,) int32, for k x k samples per output pixel, and the `spread` (B,) float32, 0-1, of their grid.

    Samples are at most PIXELS_PER_SAMPLE / `supersample` source pixels apart, on average over the output. Bilinear
    sampling blurs, and so does averaging by `shrink` (B, 2), so the grid is narrower than the output pixel: a box of r
    pixels has variance r^2 / 12, variances add, and the grid spans sqrt(r^2 - blur) of the r pixels covered. At 224 px
    this gains 2 dB.
    """
    height, width = size
    corners = source_from_output @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    corners = corners[:, :2] / corners[:, 2:]
    edges = corners[:, :, [1, 2, 3, 0]] - corners
    top, right, bottom, left = np.hypot(edges[:, 0], edges[:, 1]).T
    pixels = np.maximum((top + bottom) / width, (left + right) / height) / 2
    samples = np.ceil(pixels * supersample / PIXELS_PER_SAMPLE - 1e-9)
    blur = BLUR + 1 - 1 / shrink.max(axis=-1) ** 2
    spread = np.sqrt(np.fmax(0, 1 - blur / pixels**2))
    return np.fmin(np.fmax(samples, 1), MOST_SAMPLES).astype(np.int32), spread.astype(np.float32)


def crop_from_output(size: tuple[int, int]) -> np.ndarray:
    """Returns (3, 3): from output pixels, height x width, to the crop."""
    height, width = size
    return np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])


def flip(flips: np.ndarray) -> np.ndarray:
    """Mirrors left and right where `flips` is true."""
    return matrices([[np.where(flips, -1, 1), 0, 0], [0, 1, 0], [0, 0, 1]])


def rotation(degrees: np.ndarray, aspect: float = 1) -> np.ndarray:
    """Rotates about the centre, clockwise as displayed for positive degrees."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return matrices([[cos, sin / aspect, 0], [-sin * aspect, cos, 0], [0, 0, 1]])


def shear(x_degrees: np.ndarray, y_degrees: np.ndarray, aspect: float = 1) -> np.ndarray:
    """Shears along x, then along y. Vertical lines lean to the left for positive `x_degrees`, as in torchvision."""
    x, y = np.tan(np.deg2rad(x_degrees)) / aspect, np.tan(np.deg2rad(y_degrees)) * aspect
    return matrices([[1, x, 0], [0, 1, 0], [0, 0, 1]]) @ matrices([[1, 0, 0], [y, 1, 0], [0, 0, 1]])


def zoom(factor: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Magnifies by `factor`; the point at (x, y), 0-1 of the canvas, is fixed."""
    scale = 1 / factor
    return matrices([[scale, 0, (1 - scale) * (2 * x - 1)], [0, scale, (1 - scale) * (2 * y - 1)], [0, 0, 1]])


def translation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Moves the image right by `x` and down by `y`, in shares of the canvas's sides."""
    return matrices([[1, 0, -2 * x], [0, 1, -2 * y], [0, 0, 1]])


def warp(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns a perspective warp, horizontal by `x` and vertical by `y`.

    It moves the corner (s, t), where s and t are -1 or 1, to (s (1 - y t), t (1 - x s)). The homography that does
    this is [[1 - y^2, -x y, x], [-x y, 1 - x^2, y], [x, y, 1]]; this is its inverse, up to a factor.
    """
    q = 1 - x**2 - y**2
    to_x, to_y = -x * (1 + y**2 - x**2), -y * (1 + x**2 - y**2)
    return matrices([[q, 2 * x * y, to_x], [2 * x * y, q, to_y], [to_x, to_y, q]])


def matrices(rows: Sequence[Sequence[np.ndarray | float]]) -> np.ndarray:
    """Stacks three rows of three entries, each (B,) or a number, to (B, 3, 3) float64."""
    stacked = np.empty((np.broadcast(*(entry for row in rows for entry in row)).size, 3, 3))
    for place, row in enumerate(rows):
        for column, entry in enumerate(row):
            stacked[:, place, column] = entry
    return stacked

"""The matrices that an image's geometry is composed of, and how large it must be and how often sampled to be true.

Frames and directions are those of `augment.py`. Amounts are (B,), matrices (B, 3, 3) float64. The canvas goes from -1
to 1 either way, whatever its `aspect` (width / height); what must not distort the image takes that into account.
"""

from collections.abc import Sequence

import numpy as np

from fastpets.utils.validation import PresizeMethod

PIXELS_PER_SAMPLE = 2  # a sample reads two pixels a side, so that samples up to two pixels apart pass over none
MOST_PIXELS = 4  # an image may be so many times as large as the output; beyond that it is shrunk
MOST_SAMPLES = 16  # a side, where a perspective sees almost to its horizon
BLUR = 0.85  # of bilinear samples, in square pixels: what gave the best ratios in bench/bench_fidelity.py


def presized(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], method: PresizeMethod, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """image_from_canvas: what is kept of an image, at `x` and `y` (0-1) of the room that there is to move.

    `crop` keeps the largest part in the output's proportions, `pad` all of it with what lies beyond its edges, and
    `squish` all of it in proportions that are not its own.
    """
    canvas_h, canvas_w = canvas_sizes(heights, widths, size, method)
    left, top = x * (widths - canvas_w), y * (heights - canvas_h)
    return matrices([[canvas_w / 2, 0, left + canvas_w / 2], [0, canvas_h / 2, top + canvas_h / 2], [0, 0, 1]])


def canvas_sizes(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], method: PresizeMethod
) -> tuple[np.ndarray, np.ndarray]:
    """The canvas's height and width (B,) in pixels of the image."""
    if method == "squish":
        return heights, widths
    pixels = (np.minimum if method == "crop" else np.maximum)(heights / size[0], widths / size[1])
    return size[0] * pixels, size[1] * pixels


def shrink_factors(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], presize: int | None, method: PresizeMethod
) -> np.ndarray:
    """Factors (B, 2) int64 by which an image's height and width are divided before it is sampled: whole numbers, so
    that each pixel is the mean of a block, and the smallest after which the canvas is at most MOST_PIXELS times the
    output, or `presize` on its shorter side. 1, as for most images, leaves it as it was decoded."""
    most = MOST_PIXELS if presize is None else presize / min(size)
    canvas = np.stack(canvas_sizes(heights, widths, size, method), axis=-1)
    factors = np.ceil(canvas / size / most - 1e-9).astype(np.int64)
    return np.minimum(factors, np.stack([heights, widths], axis=-1)).clip(min=1)  # 0 pixels: of a bad file


def shrunk_sizes(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], presize: int | None, method: PresizeMethod
) -> np.ndarray:
    """Height and width (B, 2) of the images once they are shrunk."""
    return np.stack([heights, widths], axis=-1) // shrink_factors(heights, widths, size, presize, method)


def sampling(
    source_from_output: np.ndarray, size: tuple[int, int], supersample: int, shrink: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """k (B,) int32, for the mean of k x k samples an output pixel, and the `spread` (B,) float32, 0-1, of their grid.

    Samples are at most PIXELS_PER_SAMPLE / `supersample` pixels of the source apart, on average over the output. As
    each blurs a little by itself, and so does what `shrink` (B, 2) averaged before, they lie closer together than an
    output pixel is wide. A box of r pixels has a variance of r^2 / 12, and variances add up: so they lie on
    sqrt(r^2 - blur) of the r pixels that are covered. At 224 px that is worth 2 dB.
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
    """The whole crop at (height, width) pixels: one matrix (3, 3)."""
    height, width = size
    return np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])


def flip(flips: np.ndarray) -> np.ndarray:
    """Left and right exchanged where `flips` is true."""
    return matrices([[np.where(flips, -1, 1), 0, 0], [0, 1, 0], [0, 0, 1]])


def rotation(degrees: np.ndarray, aspect: float = 1) -> np.ndarray:
    """The image turned about its middle, clockwise as seen if `degrees` is positive."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return matrices([[cos, sin / aspect, 0], [-sin * aspect, cos, 0], [0, 0, 1]])


def shear(x_degrees: np.ndarray, y_degrees: np.ndarray, aspect: float = 1) -> np.ndarray:
    """Rows moved in proportion to their height, by the tangent of `x_degrees`, then columns likewise by `y_degrees`:
    lines that were upright lean to the left if `x_degrees` is positive, as torchvision's do."""
    x, y = np.tan(np.deg2rad(x_degrees)) / aspect, np.tan(np.deg2rad(y_degrees)) * aspect
    return matrices([[1, x, 0], [0, 1, 0], [0, 0, 1]]) @ matrices([[1, 0, 0], [y, 1, 0], [0, 0, 1]])


def zoom(factor: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Enlarged by `factor`, while the point at (x, y) (0-1) of the canvas stays where it is."""
    scale = 1 / factor
    return matrices([[scale, 0, (1 - scale) * (2 * x - 1)], [0, scale, (1 - scale) * (2 * y - 1)], [0, 0, 1]])


def translation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The image moved to the right by `x`, and down by `y`, shares of the canvas's sides."""
    return matrices([[1, 0, -2 * x], [0, 1, -2 * y], [0, 0, 1]])


def warp(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The perspective that sees the canvas from the side (x) and from above or below (y).

    It moves the corner (s, t), where s and t are -1 or 1, to (s (1 - y t), t (1 - x s)). The homography that does
    this is [[1 - y^2, -x y, x], [-x y, 1 - x^2, y], [x, y, 1]]; this is its inverse, up to a factor.
    """
    q = 1 - x**2 - y**2
    to_x, to_y = -x * (1 + y**2 - x**2), -y * (1 + x**2 - y**2)
    return matrices([[q, 2 * x * y, to_x], [2 * x * y, q, to_y], [to_x, to_y, q]])


def matrices(rows: Sequence[Sequence[np.ndarray | float]]) -> np.ndarray:
    """Three rows of three entries, each (B,) or one for all, as (B, 3, 3) float64."""
    stacked = np.empty((np.broadcast(*(entry for row in rows for entry in row)).size, 3, 3))
    for place, row in enumerate(rows):
        for column, entry in enumerate(row):
            stacked[:, place, column] = entry
    return stacked

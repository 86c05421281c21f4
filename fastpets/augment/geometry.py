"""Matrices of the geometric transforms of an image, and how densely it is sampled.

Frames and the naming of matrices are explained in `transforms.py`. A matrix is a tuple of three rows of three floats.
The canvas extends from -1 to 1 on both axes; `aspect`, its width / height, keeps rotation and shear from distorting.
"""

import math
from typing import get_args

import numpy as np

from fastpets.utils.compiled import compilable, compiled
from fastpets.utils.validation import PresizeMethod

Row = tuple[float, float, float]
Matrix = tuple[Row, Row, Row]

# A bilinear sample reads 2 x 2 pixels: samples at most two pixels apart leave out no pixel.
PIXELS_PER_SAMPLE = 2
MAX_RATIO = 4  # of the canvas's side to the output's; larger images are shrunk before sampling
MAX_SAMPLES = 16  # per axis; reached where a perspective comes close to its horizon
BILINEAR_BLUR = 0.85  # 12 times a bilinear sample's variance, in square pixels; the best of bench/bench_fidelity.py

# Presize methods as numbers, which compiled code compares faster than strings.
METHODS = get_args(PresizeMethod)
CROP, SQUISH, PAD = map(METHODS.index, ("crop", "squish", "pad"))

# For each EXIF orientation from 1 on, where a point (x, y) of the upright image, each from -1 to 1, is stored.
STORED_FROM_UPRIGHT = np.array(
    [
        [[1, 0], [0, 1]], [[-1, 0], [0, 1]], [[-1, 0], [0, -1]], [[1, 0], [0, -1]],
        [[0, 1], [1, 0]], [[0, 1], [-1, 0]], [[0, -1], [-1, 0]], [[0, -1], [1, 0]],
    ],
    np.float64,
)  # fmt: skip


@compilable
def image_from_canvas(height: int, width: int, size: tuple[int, int], method: int, x: float, y: float) -> Matrix:
    """Presizing: the region of an image that the canvas covers, for an output of `size` (height, width).

    CROP keeps the largest region in the output's aspect ratio, PAD the whole image and what lies beyond its borders,
    SQUISH the whole image, distorted. `x` and `y` (0-1) place the region along the axis that leaves room.
    """
    canvas_h, canvas_w = canvas_size(height, width, size, method)
    left, top = x * (width - canvas_w), y * (height - canvas_h)
    return (canvas_w / 2, 0.0, left + canvas_w / 2), (0.0, canvas_h / 2, top + canvas_h / 2), (0.0, 0.0, 1.0)


@compilable
def canvas_size(height: int, width: int, size: tuple[int, int], method: int) -> tuple[float, float]:
    """Height and width of the canvas in pixels of the image."""
    if method == SQUISH:
        return float(height), float(width)
    by_height, by_width = height / size[0], width / size[1]
    ratio = min(by_height, by_width) if method == CROP else max(by_height, by_width)
    return size[0] * ratio, size[1] * ratio


def max_ratio(size: tuple[int, int], presize: int | None) -> float:
    """Limit of the canvas's side relative to the output's; `presize` is that of the shorter side in pixels."""
    return float(MAX_RATIO) if presize is None else presize / min(size)


@compilable
def shrink_factors(height: int, width: int, size: tuple[int, int], max_ratio: float, method: int) -> tuple[int, int]:
    """Factors by which height and width of an image are divided before it is sampled.

    Factors are integers, so that each pixel becomes the mean of a block. They are the smallest after which the canvas
    is at most `max_ratio` times as large as the output; but the canvas is never shrunk below the output. Most images
    have factors of 1 and are not shrunk.
    """
    canvas_h, canvas_w = canvas_size(height, width, size, method)
    by_height, by_width = canvas_h / size[0], canvas_w / size[1]
    return _shrink_factor(by_height, max_ratio, height), _shrink_factor(by_width, max_ratio, width)


@compilable
def _shrink_factor(ratio: float, max_ratio: float, length: int) -> int:
    """The same along an axis on which the image has `length` pixels, and its canvas `ratio` times the output's."""
    factor = int(min(math.ceil(ratio / max_ratio - 1e-9), math.floor(ratio + 1e-9)))
    return max(min(factor, length), 1)  # bad files have 0 pixels


def shrunk_sizes(
    heights: np.ndarray,
    widths: np.ndarray,
    orientations: np.ndarray,
    size: tuple[int, int],
    presize: int | None,
    method: PresizeMethod,
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of images as they are stored, after shrinking, and the factors by which they are shrunk.

    Both are (N, 2) int64. `heights` and `widths` (N,) are upright.
    """
    sizes, factors = np.empty((2, len(heights), 2), np.int64)
    limits = size, max_ratio(size, presize), METHODS.index(method)
    _fill_shrunk_sizes(sizes, factors, heights, widths, orientations, *limits)
    return sizes, factors


@compiled
def _fill_shrunk_sizes(
    sizes: np.ndarray,
    factors: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    orientations: np.ndarray,
    size: tuple[int, int],
    max_ratio: float,
    method: int,
) -> None:
    for i in range(len(sizes)):
        by_height, by_width = shrink_factors(heights[i], widths[i], size, max_ratio, method)
        height, width = heights[i] // by_height, widths[i] // by_width
        is_turned = swaps_sides(orientations[i])
        sizes[i] = (width, height) if is_turned else (height, width)
        factors[i] = (by_width, by_height) if is_turned else (by_height, by_width)


@compilable
def stored_from_upright(orientation: int, height: int, width: int) -> Matrix:
    """Maps pixels of an upright image of this height and width to pixels of the image as it is stored.

    `orientation` is EXIF's, 1 to 8.
    """
    turn = STORED_FROM_UPRIGHT[orientation - 1]
    stored_h, stored_w = (width, height) if swaps_sides(orientation) else (height, width)
    from_upright = (2 / width, 0.0, -1.0), (0.0, 2 / height, -1.0), (0.0, 0.0, 1.0)
    turned = (turn[0, 0], turn[0, 1], 0.0), (turn[1, 0], turn[1, 1], 0.0), (0.0, 0.0, 1.0)
    to_stored = (stored_w / 2, 0.0, stored_w / 2), (0.0, stored_h / 2, stored_h / 2), (0.0, 0.0, 1.0)
    return product(to_stored, turned, from_upright)


@compilable
def swaps_sides(orientation: int) -> bool:
    """Whether height and width of an image with this EXIF orientation are exchanged in storage."""
    return STORED_FROM_UPRIGHT[orientation - 1, 0, 0] == 0


@compilable
def sampling(source_from_output: Matrix, size: tuple[int, int], supersample: int, shrink: int) -> tuple[int, float]:
    """The grid of samples of an output pixel: k, for k x k samples, and its `spread`, 0-1.

    k is the smallest number for which samples are at most PIXELS_PER_SAMPLE / `supersample` source pixels apart, on
    average over the output, and at most MAX_SAMPLES. `spread` is the grid's side as a fraction of the output pixel's.

    The grid is narrower than an output pixel, because bilinear interpolation and shrinking by the larger factor
    `shrink` blur, too. The variances of successive blurs add up, and a box r pixels wide has the variance r^2 / 12. So
    for an output pixel that covers r source pixels, a grid of width sqrt(r^2 - blur) blurs as the mean over the whole
    pixel does. The PSNR rises by 2 dB at 224 px.
    """
    height, width = size
    upper_left, upper_right = mapped(source_from_output, 0, 0), mapped(source_from_output, width, 0)
    lower_left, lower_right = mapped(source_from_output, 0, height), mapped(source_from_output, width, height)
    top, bottom = distance(upper_left, upper_right), distance(lower_left, lower_right)
    left, right = distance(upper_left, lower_left), distance(upper_right, lower_right)
    ratio = max((top + bottom) / width, (left + right) / height) / 2  # source pixels per output pixel
    k = np.ceil(ratio * supersample / PIXELS_PER_SAMPLE - 1e-9)
    k = k if k > 1 else 1.0  # also NaN, from a matrix with a horizon
    blur = BILINEAR_BLUR + 1 - 1 / shrink**2
    sharp = 1 - blur / ratio**2
    return int(k if k < MAX_SAMPLES else MAX_SAMPLES), math.sqrt(sharp if sharp > 0 else 0.0)


@compilable
def mapped(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    """Applies a homography to a point."""
    (xx, xy, x1), (yx, yy, y1), (wx, wy, w1) = matrix
    w = wx * x + wy * y + w1
    return (xx * x + xy * y + x1) / w, (yx * x + yy * y + y1) / w


@compilable
def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Between two points."""
    return math.hypot(b[0] - a[0], b[1] - a[1])


@compilable
def crop_from_output(size: tuple[int, int]) -> Matrix:
    """Maps an output of `size` (height, width) pixels to the crop."""
    height, width = size
    return (2 / width, 0.0, -1.0), (0.0, 2 / height, -1.0), (0.0, 0.0, 1.0)


@compilable
def crop(scale: float, x: float, y: float) -> Matrix:
    """Maps the crop to a region with `scale` (0-1) of the canvas's area.

    `x` and `y` (0-1) are the region's position: 0 at the left or upper border, 1 at the right or lower one.
    """
    return zoom(1 / math.sqrt(scale), x, y)


@compilable
def flip(flips: bool) -> Matrix:
    """Flips horizontally if `flips` is true."""
    return (-1.0 if flips else 1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@compilable
def rotation(degrees: float, aspect: float = 1) -> Matrix:
    """Rotates about the centre; positive degrees turn the image clockwise as displayed."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (cos, sin / aspect, 0.0), (-sin * aspect, cos, 0.0), (0.0, 0.0, 1.0)


@compilable
def shear(x_degrees: float, y_degrees: float, aspect: float = 1) -> Matrix:
    """Shears along x, then along y, with torchvision's signs: positive `x_degrees` move the top to the right."""
    x, y = math.tan(math.radians(x_degrees)) / aspect, math.tan(math.radians(y_degrees)) * aspect
    along_x = (1.0, x, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    along_y = (1.0, 0.0, 0.0), (y, 1.0, 0.0), (0.0, 0.0, 1.0)
    return product(along_x, along_y)


@compilable
def zoom(factor: float, x: float, y: float) -> Matrix:
    """Enlarges by `factor` about the point at (x, y) (0-1) of the canvas."""
    scale = 1 / factor
    return (scale, 0.0, (1 - scale) * (2 * x - 1)), (0.0, scale, (1 - scale) * (2 * y - 1)), (0.0, 0.0, 1.0)


@compilable
def translation(x: float, y: float) -> Matrix:
    """Moves the image to the right by `x` and down by `y`, fractions of the canvas's sides."""
    return (1.0, 0.0, -2 * x), (0.0, 1.0, -2 * y), (0.0, 0.0, 1.0)


@compilable
def perspective(x: float, y: float) -> Matrix:
    """Shows the canvas from one side (x) and from above or below (y), in perspective.

    The corner (s, t), s and t being -1 or 1, moves to (s (1 - y t), t (1 - x s)). The homography that moves it is
    [[1 - y^2, -x y, x], [-x y, 1 - x^2, y], [x, y, 1]]; this is its inverse, up to a factor.
    """
    q = 1 - x**2 - y**2
    to_x, to_y = -x * (1 + y**2 - x**2), -y * (1 + x**2 - y**2)
    return (q, 2 * x * y, to_x), (2 * x * y, q, to_y), (to_x, to_y, q)


@compilable
def product(*matrices: Matrix) -> Matrix:
    """The product of matrices, from left to right."""
    result = matrices[0]
    for matrix in matrices[1:]:
        result = _times(result[0], matrix), _times(result[1], matrix), _times(result[2], matrix)
    return result


@compilable
def _times(row: Row, matrix: Matrix) -> Row:
    """A row vector times a matrix."""
    (a, b, c), (first, second, third) = row, matrix
    return (
        a * first[0] + b * second[0] + c * third[0],
        a * first[1] + b * second[1] + c * third[1],
        a * first[2] + b * second[2] + c * third[2],
    )

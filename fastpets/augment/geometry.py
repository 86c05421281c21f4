"""Matrices of the geometric transforms, and how densely an image is sampled.

Frames and the naming of matrices are explained in `transforms.py`. Parameters are (B,), matrices (B, 3, 3) float64.
The canvas extends from -1 to 1 on both axes; `aspect`, its width / height, keeps rotation and shear from distorting.
"""

from collections.abc import Sequence

import numpy as np

from fastpets.utils.validation import PresizeMethod

# A bilinear sample reads 2 x 2 pixels: samples at most two pixels apart leave out no pixel.
PIXELS_PER_SAMPLE = 2
MAX_RATIO = 4  # of the canvas's side to the output's; larger images are shrunk before sampling
MAX_SAMPLES = 16  # per axis; reached where a perspective comes close to its horizon
BILINEAR_BLUR = 0.85  # 12 times a bilinear sample's variance, in square pixels; the best of bench/bench_fidelity.py

# For each EXIF orientation from 1 on, where a point (x, y) of the upright image, each from -1 to 1, is stored.
STORED_FROM_UPRIGHT = np.array(
    [
        [[1, 0], [0, 1]], [[-1, 0], [0, 1]], [[-1, 0], [0, -1]], [[1, 0], [0, -1]],
        [[0, 1], [1, 0]], [[0, 1], [-1, 0]], [[0, -1], [-1, 0]], [[0, -1], [1, 0]],
    ]
)  # fmt: skip


def image_from_canvas(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], method: PresizeMethod, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Presizing: the region of each image (B,) that the canvas covers, for an output of `size` (height, width).

    "crop" keeps the largest region in the output's aspect ratio, "pad" the whole image and what lies beyond its
    borders, "squish" the whole image, distorted. `x` and `y` (0-1) place the region along the axis that leaves room.
    """
    canvas_h, canvas_w = canvas_sizes(heights, widths, size, method)
    left, top = x * (widths - canvas_w), y * (heights - canvas_h)
    return matrices([[canvas_w / 2, 0, left + canvas_w / 2], [0, canvas_h / 2, top + canvas_h / 2], [0, 0, 1]])


def canvas_sizes(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], method: PresizeMethod
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width (B,) of the canvas in pixels of the image."""
    if method == "squish":
        return heights, widths
    ratio = (np.minimum if method == "crop" else np.maximum)(heights / size[0], widths / size[1])
    return size[0] * ratio, size[1] * ratio


def shrink_factors(
    heights: np.ndarray, widths: np.ndarray, size: tuple[int, int], presize: int | None, method: PresizeMethod
) -> np.ndarray:
    """Factors (B, 2) int64 by which height and width of an image are divided before it is sampled.

    Factors are integers, so that each pixel becomes the mean of a block. They are the smallest after which the canvas
    is at most MAX_RATIO times as large as the output or, if `presize` is given, its shorter side at most `presize`
    pixels; but the canvas is never shrunk below the output. Most images have factors of 1 and are not shrunk.
    """
    max_ratio = MAX_RATIO if presize is None else presize / min(size)
    ratio = np.stack(canvas_sizes(heights, widths, size, method), axis=-1) / size
    factors = np.minimum(np.ceil(ratio / max_ratio - 1e-9), np.floor(ratio + 1e-9)).astype(np.int64)
    return np.minimum(factors, np.stack([heights, widths], axis=-1)).clip(min=1)  # bad files have 0 pixels


def shrunk_sizes(
    heights: np.ndarray,
    widths: np.ndarray,
    orientations: np.ndarray,
    size: tuple[int, int],
    presize: int | None,
    method: PresizeMethod,
) -> np.ndarray:
    """Height and width (B, 2) of images as they are stored, after shrinking; `heights` and `widths` are upright."""
    sizes = np.stack([heights, widths], axis=-1) // shrink_factors(heights, widths, size, presize, method)
    return np.where(swaps_sides(orientations)[:, None], sizes[:, ::-1], sizes)


def stored_from_upright(orientations: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Maps pixels of upright images to pixels of the images as they are stored: (B, 3, 3).

    `orientations` (B,) are EXIF's, 1 to 8; `heights` and `widths` (B,) are those of the upright images.
    """
    turn = np.zeros((len(orientations), 3, 3))
    turn[:, :2, :2], turn[:, 2, 2] = STORED_FROM_UPRIGHT[orientations - 1], 1
    is_turned = swaps_sides(orientations)
    stored_w, stored_h = np.where(is_turned, heights, widths), np.where(is_turned, widths, heights)
    from_upright = matrices([[2 / widths, 0, -1], [0, 2 / heights, -1], [0, 0, 1]])
    to_stored = matrices([[stored_w / 2, 0, stored_w / 2], [0, stored_h / 2, stored_h / 2], [0, 0, 1]])
    return to_stored @ turn @ from_upright


def swaps_sides(orientations: np.ndarray) -> np.ndarray:
    """Whether height and width of images with these EXIF orientations are exchanged in storage."""
    return STORED_FROM_UPRIGHT[orientations - 1, 0, 0] == 0


def sampling(
    source_from_output: np.ndarray, size: tuple[int, int], supersample: int, shrink: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The grid of samples of an output pixel: k (B,) int32, for k x k samples, and its `spread` (B,) float32, 0-1.

    k is the smallest number for which samples are at most PIXELS_PER_SAMPLE / `supersample` source pixels apart, on
    average over the output, and at most MAX_SAMPLES. `spread` is the grid's side as a fraction of the output pixel's.

    The grid is narrower than an output pixel, because bilinear interpolation and shrinking by `shrink` (B, 2) blur,
    too. The variances of successive blurs add up, and a box r pixels wide has the variance r^2 / 12. So for an output
    pixel that covers r source pixels, a grid of width sqrt(r^2 - blur) blurs as the mean over the whole pixel does.
    The PSNR rises by 2 dB at 224 px.
    """
    height, width = size
    corners = source_from_output @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    corners = corners[:, :2] / corners[:, 2:]
    edges = corners[:, :, [1, 2, 3, 0]] - corners
    top, right, bottom, left = np.hypot(edges[:, 0], edges[:, 1]).T
    ratio = np.maximum((top + bottom) / width, (left + right) / height) / 2  # source pixels per output pixel
    samples = np.ceil(ratio * supersample / PIXELS_PER_SAMPLE - 1e-9)
    blur = BILINEAR_BLUR + 1 - 1 / shrink.max(axis=-1) ** 2
    spread = np.sqrt(np.fmax(0, 1 - blur / ratio**2))
    return np.fmin(np.fmax(samples, 1), MAX_SAMPLES).astype(np.int32), spread.astype(np.float32)


def crop_from_output(size: tuple[int, int]) -> np.ndarray:
    """Maps an output of `size` (height, width) pixels to the crop: one matrix (3, 3)."""
    height, width = size
    return np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])


def crop(scale: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Maps the crop to a region with `scale` (0-1) of the canvas's area.

    `x` and `y` (0-1) are the region's position: 0 at the left or upper border, 1 at the right or lower one.
    """
    return zoom(1 / np.sqrt(scale), x, y)


def flip(flips: np.ndarray) -> np.ndarray:
    """Flips horizontally where `flips` is true."""
    return matrices([[np.where(flips, -1, 1), 0, 0], [0, 1, 0], [0, 0, 1]])


def rotation(degrees: np.ndarray, aspect: float = 1) -> np.ndarray:
    """Rotates about the centre; positive degrees turn the image clockwise as displayed."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return matrices([[cos, sin / aspect, 0], [-sin * aspect, cos, 0], [0, 0, 1]])


def shear(x_degrees: np.ndarray, y_degrees: np.ndarray, aspect: float = 1) -> np.ndarray:
    """Shears along x, then along y, with torchvision's signs: positive `x_degrees` move the top to the right."""
    x, y = np.tan(np.deg2rad(x_degrees)) / aspect, np.tan(np.deg2rad(y_degrees)) * aspect
    return matrices([[1, x, 0], [0, 1, 0], [0, 0, 1]]) @ matrices([[1, 0, 0], [y, 1, 0], [0, 0, 1]])


def zoom(factor: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Enlarges by `factor` about the point at (x, y) (0-1) of the canvas."""
    scale = 1 / factor
    return matrices([[scale, 0, (1 - scale) * (2 * x - 1)], [0, scale, (1 - scale) * (2 * y - 1)], [0, 0, 1]])


def translation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Moves the image to the right by `x` and down by `y`, fractions of the canvas's sides."""
    return matrices([[1, 0, -2 * x], [0, 1, -2 * y], [0, 0, 1]])


def perspective(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shows the canvas from one side (x) and from above or below (y), in perspective.

    The corner (s, t), s and t being -1 or 1, moves to (s (1 - y t), t (1 - x s)). The homography that moves it is
    [[1 - y^2, -x y, x], [-x y, 1 - x^2, y], [x, y, 1]]; this is its inverse, up to a factor.
    """
    q = 1 - x**2 - y**2
    to_x, to_y = -x * (1 + y**2 - x**2), -y * (1 + x**2 - y**2)
    return matrices([[q, 2 * x * y, to_x], [2 * x * y, q, to_y], [to_x, to_y, q]])


def matrices(rows: Sequence[Sequence[np.ndarray | float]]) -> np.ndarray:
    """Stacks three rows of three entries, each (B,) or the same for all images, to (B, 3, 3) float64."""
    stacked = np.empty((np.broadcast(*(entry for row in rows for entry in row)).size, 3, 3))
    for i, row in enumerate(rows):
        for column, entry in enumerate(row):
            stacked[:, i, column] = entry
    return stacked

"""Augmentation: for each picture of a batch, one matrix for its geometry and one table for its values.

Pixels are areas: pixel i covers [i, i + 1) and its centre is i + 0.5, in the picture and in the output alike. Points
are columns (x, y, 1); a matrix is named target_from_source, so that the names of a product read off. On the way from
an output pixel to the place where it is sampled there are five frames:

    output   the S x S pixels that the model sees
    crop     the part of the canvas that they cover, [-1, 1] either way
    canvas   the square that presizing keeps, [-1, 1] either way: the picture's shorter side, and as much of the
             longer one; flips, turns, zooms and warps happen about its middle
    picture  (w, h) pixels, upright
    source   the picture as it is sampled, shrunk if it was large: (w', h') pixels

The formulas are those of fastai 2.8's `aug_transforms(size, min_scale=0.75)`, each sample with draws of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastpets import philox
from fastpets.config import Augment

# Each draw's place in the sample's stream of random numbers: append, and no other draw changes.
DRAWS = (
    *("presize_x", "presize_y", "flip"),
    *("rotate_gate", "rotate", "zoom_gate", "zoom", "zoom_x", "zoom_y"),
    *("warp_x_gate", "warp_x", "warp_y_gate", "warp_y"),
    *("crop_scale", "crop_x", "crop_y"),
    *("brightness_gate", "brightness", "contrast_gate", "contrast"),
)
Draws = dict[str, np.ndarray]  # name -> (B,) float64 in (0, 1)


class Transforms(NamedTuple):
    """What is to be done to a batch: all that decoding, warp and look-up are told."""

    source_from_output: np.ndarray  # (B, 3, 3) float32
    tables: np.ndarray  # (B, 3, 256) float32
    shrunk_size: np.ndarray  # (B, 2) float32: h', w' in pixels
    is_shrunk: np.ndarray  # (B,) bool


def transforms(
    ids: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    *,
    size: int,
    presize: int,
    mean: Sequence[float],
    std: Sequence[float],
    augment: Augment | None,
    seed: int = 0,
    epoch: int = 0,
) -> Transforms:
    """Matrices and tables for pictures `ids` (B,) of upright `heights` and `widths` (B,) in pixels.

    Without `augment` (validation) nothing is drawn: the centre square, resized to `size`.
    """
    if augment is None:
        middle = np.full(len(ids), 0.5)
        picture_from_crop = presize_crop(heights, widths, middle, middle)
        values = np.broadcast_to(np.arange(256) / 255, (len(ids), 256))
    else:
        numbers = philox.uniforms(philox.AUGMENT, seed, epoch, ids, 0, len(DRAWS))
        u = dict(zip(DRAWS, numbers.T, strict=True))
        picture_from_canvas = presize_crop(heights, widths, u["presize_x"], u["presize_y"])
        picture_from_crop = picture_from_canvas @ geometry(u, augment) @ random_crop(u, augment)
        values = lighting(u, augment)
    shrunk_h, shrunk_w = shrunk_sizes(heights, widths, min(presize, 2 * size))
    source_from_picture = matrices([[shrunk_w / widths, 0, 0], [0, shrunk_h / heights, 0], [0, 0, 1]])
    source_from_output = source_from_picture @ picture_from_crop @ crop_from_output(size)
    return Transforms(
        source_from_output.astype(np.float32),
        normalized(values, mean, std).astype(np.float32),
        np.stack([shrunk_h, shrunk_w], axis=-1).astype(np.float32),
        (shrunk_h != heights) | (shrunk_w != widths),
    )


def shrunk_sizes(heights: np.ndarray, widths: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (h', w') after pictures whose shorter side exceeds `limit` are reduced to it; the others' own.

    One bilinear tap is honest up to a factor of two between picture and output; beyond that it would miss pixels.
    """
    scale = np.minimum(1.0, limit / np.minimum(heights, widths))
    return np.round(heights * scale).astype(np.int64), np.round(widths * scale).astype(np.int64)


def presize_crop(heights: np.ndarray, widths: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """picture_from_canvas: the whole shorter side, at `x` or `y` (0-1) along the longer one."""
    side = np.minimum(heights, widths)
    left, top = x * (widths - side), y * (heights - side)
    half = side / 2
    return matrices([[half, 0, left + half], [0, half, top + half], [0, 0, 1]])


def crop_from_output(size: int) -> np.ndarray:
    """The whole crop at `size` pixels: one matrix (3, 3)."""
    return np.array([[2 / size, 0, -1], [0, 2 / size, -1], [0, 0, 1]])


def geometry(u: Draws, augment: Augment) -> np.ndarray:
    """canvas_from_canvas: where on the canvas a point of the augmented canvas comes from."""
    gate = augment.affine_p
    degrees = gated(u["rotate_gate"], gate, symmetric(u["rotate"], augment.rotate_deg * augment.mult), 0)
    factor = gated(u["zoom_gate"], gate, 1 + u["zoom"] * (augment.zoom - 1), 1)
    warp_x = gated(u["warp_x_gate"], gate, symmetric(u["warp_x"], augment.warp * augment.mult), 0)
    warp_y = gated(u["warp_y_gate"], gate, symmetric(u["warp_y"], augment.warp * augment.mult), 0)
    flips = u["flip"] < augment.flip_p
    return warp(warp_x, warp_y) @ flip(flips) @ rotation(degrees) @ zoom(factor, u["zoom_x"], u["zoom_y"])


def flip(flips: np.ndarray) -> np.ndarray:
    """Left and right exchanged where `flips` (B,) is true."""
    return matrices([[np.where(flips, -1, 1), 0, 0], [0, 1, 0], [0, 0, 1]])


def rotation(degrees: np.ndarray) -> np.ndarray:
    """The picture turned about its middle, clockwise as seen if `degrees` is positive."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return matrices([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def zoom(factor: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Enlarged by `factor`, while the point at (x, y) (0-1) of the canvas stays where it is."""
    scale = 1 / factor
    return matrices([[scale, 0, (1 - scale) * (2 * x - 1)], [0, scale, (1 - scale) * (2 * y - 1)], [0, 0, 1]])


def warp(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The perspective that sees the canvas from the side (x) and from above or below (y).

    It moves the corner (s, t), where s and t are -1 or 1, to (s (1 - y t), t (1 - x s)). The homography that does
    this is [[1 - y^2, -x y, x], [-x y, 1 - x^2, y], [x, y, 1]]; this is its inverse, up to a factor.
    """
    q = 1 - x**2 - y**2
    to_x, to_y = -x * (1 + y**2 - x**2), -y * (1 + x**2 - y**2)
    return matrices([[q, 2 * x * y, to_x], [2 * x * y, q, to_y], [to_x, to_y, q]])


def random_crop(u: Draws, augment: Augment) -> np.ndarray:
    """canvas_from_crop: a part of the canvas with `min_scale` to all of its area, anywhere on it."""
    side = np.sqrt(augment.min_scale + u["crop_scale"] * (1 - augment.min_scale))
    return matrices(
        [
            [side, 0, (1 - side) * (2 * u["crop_x"] - 1)],
            [0, side, (1 - side) * (2 * u["crop_y"] - 1)],
            [0, 0, 1],
        ]
    )


def lighting(u: Draws, augment: Augment) -> np.ndarray:
    """What each 8-bit value becomes (B, 256), on a scale from 0 to 1: fastai's brightness, then its contrast.

    Both act on the value's logit v: brightness adds logit(b), b in 0.5 (1 - l) to 0.5 (1 + l); contrast multiplies
    by c, whose logarithm is uniform between those of 1 - l and 1 / (1 - l).
    """
    most = augment.lighting * augment.mult
    brightness = gated(u["brightness_gate"], augment.lighting_p, 0.5 + symmetric(u["brightness"], 0.5 * most), 0.5)
    log_contrast = gated(u["contrast_gate"], augment.lighting_p, symmetric(u["contrast"], -np.log(1 - most)), 0)
    values = logit(np.arange(256) / 255) + logit(brightness)[:, None]
    return 1 / (1 + np.exp(-np.exp(log_contrast)[:, None] * values))


def normalized(values: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Values (B, 256) on a scale from 0 to 1 as each of the model's three channels wants them: (B, 3, 256)."""
    return (values[:, None, :] - np.array(mean)[:, None]) / np.array(std)[:, None]


def logit(value: np.ndarray) -> np.ndarray:
    """Log odds, of values kept 1e-7 away from 0 and 1 as in fastai."""
    value = np.clip(value, 1e-7, 1 - 1e-7)
    return np.log(value / (1 - value))


def symmetric(u: np.ndarray, most: float) -> np.ndarray:
    """From (0, 1) to (-most, most)."""
    return (2 * u - 1) * most


def gated(gate: np.ndarray, p: float, value: np.ndarray, neutral: float) -> np.ndarray:
    """`value` with probability `p`, else `neutral`."""
    return np.where(gate < p, value, neutral)


def matrices(rows: Sequence[Sequence[np.ndarray | float]]) -> np.ndarray:
    """Three rows of three entries, each (B,) or one for all, as (B, 3, 3) float64."""
    entries = np.broadcast_arrays(*(entry for row in rows for entry in row))
    return np.stack(entries, axis=-1).reshape(-1, 3, 3).astype(np.float64)

"""Augmentation: for each image of a batch, one matrix for its geometry and one table for its values.

Pixels are areas: pixel i covers [i, i + 1) and its centre is i + 0.5, in the image and in the output alike. Points
are columns (x, y, 1); a matrix is named target_from_source, so that the names of a product read off. On the way from
an output pixel to the place where it is sampled there are five frames:

    output   the H x W pixels that the model sees
    crop     the part of the canvas that they cover, [-1, 1] either way
    canvas   what presizing keeps of the image, in the output's proportions, [-1, 1] either way; flips, turns, zooms
             and warps happen about its middle
    image  (w, h) pixels, upright
    source   the image as it is sampled, shrunk by a whole factor if it was large

`transforms` is the whole of it; the matrices are in `geometry.py`, the luts in `lookup_tables.py`. The draws and formulas
are those of fastai 2.8's `aug_transforms(size, min_scale=0.75)`, each sample with draws of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fastpets.augment import geometry, lookup_tables
from fastpets.augment.policy import Augment
from fastpets.utils import philox
from fastpets.utils.validation import PresizeMethod

# Each draw's place in the sample's stream of random numbers: append, and no other draw changes.
DRAWS = (
    *("presize_x", "presize_y", "flip"),
    *("rotate_gate", "rotate", "zoom_gate", "zoom", "zoom_x", "zoom_y"),
    *("warp_x_gate", "warp_x", "warp_y_gate", "warp_y"),
    *("crop_scale", "crop_x", "crop_y"),
    *("brightness_gate", "brightness", "contrast_gate", "contrast"),
    *("shear_x_gate", "shear_x", "shear_y_gate", "shear_y"),
    *("translate_x_gate", "translate_x", "translate_y_gate", "translate_y"),
    *("gamma_gate", "gamma", "solarize_gate", "solarize", "posterize_gate", "posterize", "invert"),
    "which",
)
EIGHT_BIT = np.arange(256)[None] / 255  # every value that a channel may have (1, 256)
Draws = dict[str, np.ndarray]  # name -> (B,) float64 in (0, 1)
Amounts = dict[str, np.ndarray]  # name of a change -> (B,) float64: how much of it each sample undergoes


class Transforms(NamedTuple):
    """What is to be done to a batch: all that decoding and the warp are told."""

    source_from_output: np.ndarray  # (B, 3, 3) float32
    samples: np.ndarray  # (B,) int32: k, for the mean of k x k samples an output pixel
    spread: np.ndarray  # (B,) float32, 0-1: the share of the pixel's sides that their grid takes
    luts: np.ndarray  # (B, 3, 256) float32, or uint8
    shrink: np.ndarray  # (B, 2) int64: whole factors by which the image's height and width are divided first


def transforms(
    ids: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    *,
    size: tuple[int, int],
    shrink_for: tuple[int, int] | None = None,
    presize: int | None = None,
    presize_method: PresizeMethod = "crop",
    supersample: int = 1,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    epoch: int = 0,
    occurrences: int | np.ndarray = 0,
) -> Transforms:
    """Matrices and luts for images `ids` (B,) of upright `heights` and `widths` (B,) in pixels.

    `size` is the output's (height, width); images are shrunk as for `shrink_for`, by default that size. Without
    `augment` (validation) nothing is drawn: the middle of the image, resized. `normalization` is a mean and a std of
    three channels; without it the luts give 8-bit values.
    `occurrences` (B,) tells apart the draws for an image that comes more than once in an epoch.
    """
    if augment is None:
        middle = np.full(len(ids), 0.5)
        image_from_crop = geometry.presized(heights, widths, size, presize_method, middle, middle)
        of_values = EIGHT_BIT
    else:
        u, todo = draws(ids, augment, seed, epoch, occurrences)
        image_from_canvas = geometry.presized(heights, widths, size, presize_method, u["presize_x"], u["presize_y"])
        canvas_from_crop = canvas_from_canvas(todo, u, size[1] / size[0]) @ random_crop(u, augment.min_scale)
        image_from_crop = image_from_canvas @ canvas_from_crop
        of_values = changed_values(todo)
    of_values = np.broadcast_to(of_values, (len(ids), 256))
    shrink = geometry.shrink_factors(heights, widths, shrink_for or size, presize, presize_method)
    source_from_image = geometry.matrices([[1 / shrink[:, 1], 0, 0], [0, 1 / shrink[:, 0], 0], [0, 0, 1]])
    source_from_output = source_from_image @ image_from_crop @ geometry.crop_from_output(size)
    return Transforms(
        source_from_output.astype(np.float32),
        *geometry.sampling(source_from_output, size, supersample, shrink),
        lookup_tables.eight_bit(of_values)
        if normalization is None
        else lookup_tables.normalized(of_values, *normalization),
        shrink,
    )


def draws(
    ids: np.ndarray, augment: Augment, seed: int, epoch: int, occurrences: int | np.ndarray
) -> tuple[Draws, Amounts]:
    """The draws for each of the images, up to the last that matters, and what they undergo by them."""
    last = ("crop_y", *augment.changes, *["invert"] * (augment.invert_p > 0), *["which"] * augment.one_of)
    count = 1 + max(map(DRAWS.index, last))
    numbers = philox.uniforms(philox.AUGMENT, seed, epoch, ids, occurrences, count)
    u = dict(zip(DRAWS[:count], numbers.T, strict=True))
    return u, amounts(u, augment)


# A change's amount by its draw, between the largest one either way.
AMOUNTS: dict[str, Callable[[np.ndarray, Augment], np.ndarray]] = {
    "rotate": lambda u, a: symmetric(u, a.rotate_deg * a.mult),
    "zoom": lambda u, a: 1 + u * (a.zoom - 1),
    "warp_x": lambda u, a: symmetric(u, a.warp * a.mult),
    "warp_y": lambda u, a: symmetric(u, a.warp * a.mult),
    "shear_x": lambda u, a: symmetric(u, a.shear_deg * a.mult),
    "shear_y": lambda u, a: symmetric(u, a.shear_deg * a.mult),
    "translate_x": lambda u, a: symmetric(u, a.translate * a.mult),
    "translate_y": lambda u, a: symmetric(u, a.translate * a.mult),
    "brightness": lambda u, a: 0.5 + symmetric(u, 0.5 * a.brightness * a.mult),
    "contrast": lambda u, a: np.exp(symmetric(u, -np.log(1 - a.contrast * a.mult))),
    "gamma": lambda u, a: np.exp(symmetric(u, np.log(1 + a.gamma * a.mult))),
    "solarize": lambda u, a: 1 - u * a.solarize,
    "posterize": lambda u, a: np.floor(u * (a.posterize + 1)),
}
NEUTRAL = {
    **dict.fromkeys(("rotate", "warp_x", "warp_y", "shear_x", "shear_y", "translate_x", "translate_y", "posterize"), 0),
    **dict.fromkeys(("zoom", "contrast", "gamma"), 1),
    **{"brightness": 0.5, "solarize": np.inf},
}
OF_VALUES = ("brightness", "contrast", "gamma", "solarize", "posterize")


def amounts(u: Draws, augment: Augment) -> Amounts:
    """How much of every change each sample undergoes, as its draws have it: neutral where the change's gate is shut,
    and one amount (1,) for all where the policy has no such change."""
    fires = gates(u, augment)
    todo = {name: np.array([amount]) for name, amount in NEUTRAL.items()}
    todo |= {name: np.where(fires[name], AMOUNTS[name](u[name], augment), NEUTRAL[name]) for name in augment.changes}
    inverted = u["invert"] < augment.invert_p if augment.invert_p else np.array([False])
    return todo | {"flip": u["flip"] < augment.flip_p, "invert": inverted}


def gates(u: Draws, augment: Augment) -> dict[str, np.ndarray]:
    """Which of the policy's changes each sample undergoes (B,): every one by a draw of its own, or exactly one, or
    none, of them."""
    choices = augment.changes
    if augment.one_of:
        which = np.floor(u["which"] * (len(choices) + 1))  # the last is the identity
        return {name: which == place for place, name in enumerate(choices)}
    return {
        name: u[f"{name}_gate"] < (augment.lighting_p if name in OF_VALUES else augment.affine_p) for name in choices
    }


def canvas_from_canvas(todo: Amounts, u: Draws, aspect: float) -> np.ndarray:
    """Where on the canvas a point of the augmented canvas comes from; `aspect` is the canvas's width / height."""
    return (
        geometry.warp(todo["warp_x"], todo["warp_y"])
        @ geometry.flip(todo["flip"])
        @ geometry.rotation(todo["rotate"], aspect)
        @ geometry.shear(todo["shear_x"], todo["shear_y"], aspect)
        @ geometry.zoom(todo["zoom"], u["zoom_x"], u["zoom_y"])
        @ geometry.translation(todo["translate_x"], todo["translate_y"])
    )


def random_crop(u: Draws, min_scale: float) -> np.ndarray:
    """canvas_from_crop: a part of the canvas with `min_scale` to all of its area, anywhere on it."""
    side = np.sqrt(min_scale + u["crop_scale"] * (1 - min_scale))
    return geometry.zoom(1 / side, u["crop_x"], u["crop_y"])


def changed_values(todo: Amounts) -> np.ndarray:
    """What each 8-bit value becomes (B, 256), on a scale from 0 to 1; (1, 256) if that is the same for all samples."""
    changed = lookup_tables.brightness_and_contrast(EIGHT_BIT, todo["brightness"], todo["contrast"])
    changed = lookup_tables.gamma(changed, todo["gamma"])
    changed = lookup_tables.solarize(changed, todo["solarize"])
    changed = lookup_tables.posterize(changed, todo["posterize"])
    return lookup_tables.invert(changed, todo["invert"])


def symmetric(u: np.ndarray, most: float) -> np.ndarray:
    """From (0, 1) to (-most, most)."""
    return (2 * u - 1) * most

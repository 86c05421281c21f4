"""Composes what is done to each image of a batch into one matrix for its geometry and one lookup table for its tone.

Pixels are areas: pixel i covers [i, i + 1) and its centre is i + 0.5, in the image and in the output alike. Points are
columns (x, y, 1). A matrix is named target_from_source, so that the names of a product read off. Coordinates pass
through five frames, from an output pixel to the place where the image is sampled:

    output   the H x W pixels that the model sees
    crop     the part of the canvas that they cover, [-1, 1] on both axes
    canvas   what presizing keeps of the image, in the output's aspect ratio, [-1, 1] on both axes; flip, rotation,
             zoom and warp act about its centre
    image    (w, h) pixels, upright
    source   the image as it is sampled: shrunk by whole factors if it is large

`transforms` draws the random parameters and composes them. The matrices are in `geometry.py`, the changes of tone in
`lookup_tables.py`. Parameters and formulas are those of fastai 2.8's `aug_transforms(size, min_scale=0.75)`, drawn for
each image independently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastpets.augment import geometry, lookup_tables
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import Preprocessing
from fastpets.utils import philox

# The place of each random number in an image's stream. Append only: the others then stay as they are.
STREAM = (
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
LEVELS = np.arange(256)[None] / 255  # (1, 256), the values of a channel
Uniforms = dict[str, np.ndarray]  # by name, (B,) float64 in (0, 1)
Parameters = dict[str, np.ndarray]  # by change, (B,) float64, or (1,) for all images alike


class Transforms(NamedTuple):
    """What is done to each of B images; everything that decoding and the warp need to know.

    Attributes:
        source_from_output: (B, 3, 3) float32 homographies.
        samples: (B,) int32, k: an output pixel is the mean of k x k samples.
        spread: (B,) float32, 0-1: the share of an output pixel's sides over which they are spread.
        luts: (B, 3, 256) float32, or uint8: the output value of each 8-bit value, per channel.
        shrink: (B, 2) int64, whole factors by which height and width are divided before the warp.
    """

    source_from_output: np.ndarray
    samples: np.ndarray
    spread: np.ndarray
    luts: np.ndarray
    shrink: np.ndarray

    def select(self, rows: np.ndarray) -> Transforms:
        """The transforms of the images at `rows`, indices or a mask."""
        return Transforms(*(field[rows] for field in self))

    def concatenate(self, other: Transforms) -> Transforms:
        """These, followed by `other`'s."""
        return Transforms(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


def transforms(
    ids: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    preprocessing: Preprocessing,
    *,
    shrink_for: tuple[int, int] | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    epoch: int = 0,
    occurrences: int | np.ndarray = 0,
) -> Transforms:
    """Returns the transforms of the images with item `ids` (B,) and upright `heights` and `widths` (B,) in pixels.

    Args:
        shrink_for: output height and width for which large images are shrunk. Default: the preprocessing's size.
        augment: the policy; None, for validation, takes the centre of each image.
        seed, epoch, occurrences: the key of the random parameters, with the item id; `occurrences`, one or (B,), tells
            apart an item's repetitions within an epoch.
    """
    size, presize, method = preprocessing.size, preprocessing.presize, preprocessing.presize_method
    if augment is None:
        centre = np.full(len(ids), 0.5)
        image_from_crop = geometry.presized(heights, widths, size, method, centre, centre)
        levels = LEVELS
    else:
        u, parameters = random_parameters(ids, augment, seed, epoch, occurrences)
        image_from_canvas = geometry.presized(heights, widths, size, method, u["presize_x"], u["presize_y"])
        canvas_from_crop = canvas_from_canvas(parameters, u, size[1] / size[0]) @ random_crop(u, augment.min_scale)
        image_from_crop = image_from_canvas @ canvas_from_crop
        levels = toned(parameters)
    levels = np.broadcast_to(levels, (len(ids), 256))
    shrink = geometry.shrink_factors(heights, widths, shrink_for or size, presize, method)
    source_from_image = geometry.matrices([[1 / shrink[:, 1], 0, 0], [0, 1 / shrink[:, 0], 0], [0, 0, 1]])
    source_from_output = source_from_image @ image_from_crop @ geometry.crop_from_output(size)
    normalization = preprocessing.normalization
    return Transforms(
        source_from_output.astype(np.float32),
        *geometry.sampling(source_from_output, size, preprocessing.supersample, shrink),
        lookup_tables.quantized(levels) if normalization is None else lookup_tables.normalized(levels, *normalization),
        shrink,
    )


def random_parameters(
    ids: np.ndarray, augment: Augment, seed: int, epoch: int, occurrences: int | np.ndarray
) -> tuple[Uniforms, Parameters]:
    """Draws for each image its uniform random numbers, as many as the policy uses, and the parameters they stand for."""
    used = ("crop_y", *augment.changes, *["invert"] * (augment.p_invert > 0), *["which"] * augment.one_of)
    count = 1 + max(map(STREAM.index, used))
    numbers = philox.uniforms(philox.AUGMENT, seed, epoch, ids, occurrences, count)
    u = dict(zip(STREAM[:count], numbers.T, strict=True))
    return u, parameters_from_uniforms(u, augment)


# The parameter of each change from its uniform random number: within the policy's maximum.
PARAMETERS: dict[str, Callable[[np.ndarray, Augment], np.ndarray]] = {
    "rotate": lambda u, a: symmetric(u, a.max_rotate * a.mult),
    "zoom": lambda u, a: 1 + u * (a.max_zoom - 1),
    "warp_x": lambda u, a: symmetric(u, a.max_warp * a.mult),
    "warp_y": lambda u, a: symmetric(u, a.max_warp * a.mult),
    "shear_x": lambda u, a: symmetric(u, a.max_shear * a.mult),
    "shear_y": lambda u, a: symmetric(u, a.max_shear * a.mult),
    "translate_x": lambda u, a: symmetric(u, a.max_translate * a.mult),
    "translate_y": lambda u, a: symmetric(u, a.max_translate * a.mult),
    "brightness": lambda u, a: 0.5 + symmetric(u, 0.5 * a.max_brightness * a.mult),
    "contrast": lambda u, a: np.exp(symmetric(u, -np.log(1 - a.max_contrast * a.mult))),
    "gamma": lambda u, a: np.exp(symmetric(u, np.log(1 + a.max_gamma * a.mult))),
    "solarize": lambda u, a: 1 - u * a.max_solarize,
    "posterize": lambda u, a: np.floor(u * (a.max_posterize + 1)),
}
IDENTITY = {
    **dict.fromkeys(("rotate", "warp_x", "warp_y", "shear_x", "shear_y", "translate_x", "translate_y", "posterize"), 0),
    **dict.fromkeys(("zoom", "contrast", "gamma"), 1),
    **{"brightness": 0.5, "solarize": np.inf},
}
TONE = ("brightness", "contrast", "gamma", "solarize", "posterize")


def parameters_from_uniforms(u: Uniforms, augment: Augment) -> Parameters:
    """Returns the parameter of every change: (B,), the identity's where the change does not happen; (1,) if the policy
    does not have the change."""
    happens = gates(u, augment)
    parameters = {name: np.array([identity]) for name, identity in IDENTITY.items()}
    for name in augment.changes:
        parameters[name] = np.where(happens[name], PARAMETERS[name](u[name], augment), IDENTITY[name])
    inverted = u["invert"] < augment.p_invert if augment.p_invert else np.array([False])
    return parameters | {"flip": u["flip"] < augment.p_flip, "invert": inverted}


def gates(u: Uniforms, augment: Augment) -> dict[str, np.ndarray]:
    """Returns whether each of the policy's changes happens (B,): independently, or exactly one of them or none."""
    choices = augment.changes
    if augment.one_of:
        which = np.floor(u["which"] * (len(choices) + 1))  # the last choice is the identity
        return {name: which == place for place, name in enumerate(choices)}
    return {name: u[f"{name}_gate"] < (augment.p_lighting if name in TONE else augment.p_affine) for name in choices}


def canvas_from_canvas(parameters: Parameters, u: Uniforms, aspect: float) -> np.ndarray:
    """Returns (B, 3, 3): from a point of the augmented canvas to the canvas; `aspect` is the canvas's width / height."""
    return (
        geometry.warp(parameters["warp_x"], parameters["warp_y"])
        @ geometry.flip(parameters["flip"])
        @ geometry.rotation(parameters["rotate"], aspect)
        @ geometry.shear(parameters["shear_x"], parameters["shear_y"], aspect)
        @ geometry.zoom(parameters["zoom"], u["zoom_x"], u["zoom_y"])
        @ geometry.translation(parameters["translate_x"], parameters["translate_y"])
    )


def random_crop(u: Uniforms, min_scale: float) -> np.ndarray:
    """Returns canvas_from_crop (B, 3, 3): a part of the canvas with `min_scale` to all of its area, anywhere on it."""
    side = np.sqrt(min_scale + u["crop_scale"] * (1 - min_scale))
    return geometry.zoom(1 / side, u["crop_x"], u["crop_y"])


def toned(parameters: Parameters) -> np.ndarray:
    """Returns the 256 levels after all changes of tone: (B, 256), 0-1, or (1, 256) if equal for all images."""
    levels = lookup_tables.brightness_and_contrast(LEVELS, parameters["brightness"], parameters["contrast"])
    levels = lookup_tables.gamma(levels, parameters["gamma"])
    levels = lookup_tables.solarize(levels, parameters["solarize"])
    levels = lookup_tables.posterize(levels, parameters["posterize"])
    return lookup_tables.invert(levels, parameters["invert"])


def symmetric(u: np.ndarray, most: float) -> np.ndarray:
    """Maps (0, 1) to (-most, most)."""
    return (2 * u - 1) * most

"""Draws the random parameters of augmentation, which depend on (seed, epoch, item id, occurrence) only.

The formulas are those of fastai 2.8's `aug_transforms`; the parameters are drawn for each image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastpets.augment.policy import Augment
from fastpets.utils import philox

# The uniform random numbers of an image, in the order of its stream. `apply_` decides whether an operation is applied.
# Append only: a number's position fixes its value, and with it the pixels of earlier runs.
UNIFORMS = (
    *("presize_x", "presize_y", "flip"),
    *("apply_rotate", "rotate", "apply_zoom", "zoom", "zoom_x", "zoom_y"),
    *("apply_warp_x", "warp_x", "apply_warp_y", "warp_y"),
    *("crop_scale", "crop_x", "crop_y"),
    *("apply_brightness", "brightness", "apply_contrast", "contrast"),
    *("apply_shear_x", "shear_x", "apply_shear_y", "shear_y"),
    *("apply_translate_x", "translate_x", "apply_translate_y", "translate_y"),
    *("apply_gamma", "gamma", "apply_solarize", "solarize", "apply_posterize", "posterize", "invert"),
    "which_op",
)


class RandomParameters(NamedTuple):
    """Random parameters of a batch: each (B,), or (1,) if the policy lacks the operation and all images share it."""

    presize_x: np.ndarray  # 0-1: position of the canvas in the image, from left to right
    presize_y: np.ndarray  # 0-1: from top to bottom
    flip: np.ndarray  # bool
    rotate: np.ndarray  # degrees, clockwise
    zoom: np.ndarray  # factor
    zoom_x: np.ndarray  # 0-1: the fixed point, from left to right
    zoom_y: np.ndarray  # 0-1: from top to bottom
    warp_x: np.ndarray  # fraction of half a side
    warp_y: np.ndarray
    shear_x: np.ndarray  # degrees
    shear_y: np.ndarray
    translate_x: np.ndarray  # fraction of the canvas's width, to the right
    translate_y: np.ndarray  # fraction of the canvas's height, downwards
    crop_scale: np.ndarray  # fraction of the canvas's area
    crop_x: np.ndarray  # 0-1: position of the crop on the canvas, from left to right
    crop_y: np.ndarray  # 0-1: from top to bottom
    brightness: np.ndarray  # 0-1; 0.5 changes nothing
    contrast: np.ndarray  # factor
    gamma: np.ndarray  # exponent
    solarize: np.ndarray  # threshold, 0-1 or inf
    posterize: np.ndarray  # bits dropped, 0-7
    invert: np.ndarray  # bool


# Parameters that change nothing, for one image.
NEUTRAL = RandomParameters(
    **{name: np.array([0.5]) for name in ("presize_x", "presize_y", "zoom_x", "zoom_y", "crop_x", "crop_y")},
    **{name: np.array([0]) for name in ("rotate", "warp_x", "warp_y", "shear_x", "shear_y", "posterize")},
    **{name: np.array([0]) for name in ("translate_x", "translate_y")},
    **{name: np.array([1]) for name in ("zoom", "crop_scale", "contrast", "gamma")},
    **{name: np.array([False]) for name in ("flip", "invert")},
    brightness=np.array([0.5]),
    solarize=np.array([np.inf]),
)
LIGHTING_OPS = ("brightness", "contrast", "gamma", "solarize", "posterize")

# An operation's parameter from a uniform number u in (0, 1) and the policy.
PARAMETER_FROM_UNIFORM: dict[str, Callable[[np.ndarray, Augment], np.ndarray]] = {
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


def draw_parameters(
    ids: np.ndarray, augment: Augment, *, seed: int, epoch: int, occurrences: int | np.ndarray = 0
) -> RandomParameters:
    """Draws the random parameters of images `ids` (B,) in an epoch.

    `occurrences`, one number or (B,), counts how often an image came before in the epoch, so that an image that
    a sampler repeats is augmented differently each time.
    """
    # No more numbers are generated than the policy needs. A number does not depend on how many follow it.
    needed = ["crop_y", *augment.ops]
    if augment.p_invert:
        needed.append("invert")
    if augment.one_of:
        needed.append("which_op")
    count = 1 + max(map(UNIFORMS.index, needed))
    numbers = philox.uniforms(philox.AUGMENT, seed, epoch, ids, occurrences, count)
    u = dict(zip(UNIFORMS[:count], numbers.T, strict=True))
    drawn = {name: u[name] for name in ("presize_x", "presize_y", "zoom_x", "zoom_y", "crop_x", "crop_y")}
    drawn["flip"] = u["flip"] < augment.p_flip
    drawn["crop_scale"] = augment.min_scale + u["crop_scale"] * (1 - augment.min_scale)
    for name, is_applied in applied_ops(u, augment).items():
        parameter = PARAMETER_FROM_UNIFORM[name](u[name], augment)
        drawn[name] = np.where(is_applied, parameter, getattr(NEUTRAL, name))
    if augment.p_invert:
        drawn["invert"] = u["invert"] < augment.p_invert
    return NEUTRAL._replace(**drawn)


def applied_ops(u: dict[str, np.ndarray], augment: Augment) -> dict[str, np.ndarray]:
    """For each of the policy's operations, to which images it is applied: (B,) bool."""
    if augment.one_of:
        which = np.floor(u["which_op"] * (len(augment.ops) + 1))  # the last choice is the identity
        return {name: which == i for i, name in enumerate(augment.ops)}
    return {
        name: u[f"apply_{name}"] < (augment.p_lighting if name in LIGHTING_OPS else augment.p_affine)
        for name in augment.ops
    }


def symmetric(u: np.ndarray, limit: float) -> np.ndarray:
    """Maps (0, 1) to (-limit, limit)."""
    return (2 * u - 1) * limit

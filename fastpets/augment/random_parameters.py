"""Draws the random parameters of an image, which depend on (seed, epoch, item id, occurrence) only.

The formulas are those of fastai 2.8's `aug_transforms`; the parameters are drawn for each image.
"""

import functools
import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from fastpets.augment.policy import Augment
from fastpets.utils import philox
from fastpets.utils.compiled import compilable

# The positions of an image's uniform random numbers in its stream. The one before an operation's decides whether the
# operation is applied. Append only: a number's position fixes its value, and with it the pixels of earlier runs.
Uniform = IntEnum(
    "Uniform",
    "presize_x presize_y flip "
    "apply_rotate rotate apply_zoom zoom zoom_x zoom_y "
    "apply_warp_x warp_x apply_warp_y warp_y "
    "crop_scale crop_x crop_y "
    "apply_brightness brightness apply_contrast contrast "
    "apply_shear_x shear_x apply_shear_y shear_y "
    "apply_translate_x translate_x apply_translate_y translate_y "
    "apply_gamma gamma apply_solarize solarize apply_posterize posterize invert "
    "which_op",
    start=0,
)
NUM_UNIFORMS = len(Uniform)
LIGHTING_OPS = ("brightness", "contrast", "gamma", "solarize", "posterize")


class RandomParameters(NamedTuple):
    """Random parameters of an image. The defaults change nothing."""

    presize_x: float = 0.5  # 0-1: position of the canvas in the image, from left to right
    presize_y: float = 0.5  # 0-1: from top to bottom
    flip: bool = False
    rotate: float = 0.0  # degrees, clockwise
    zoom: float = 1.0  # factor
    zoom_x: float = 0.5  # 0-1: the fixed point, from left to right
    zoom_y: float = 0.5  # 0-1: from top to bottom
    warp_x: float = 0.0  # fraction of half a side
    warp_y: float = 0.0
    shear_x: float = 0.0  # degrees
    shear_y: float = 0.0
    translate_x: float = 0.0  # fraction of the canvas's width, to the right
    translate_y: float = 0.0  # fraction of the canvas's height, downwards
    crop_scale: float = 1.0  # fraction of the canvas's area
    crop_x: float = 0.5  # 0-1: position of the crop on the canvas, from left to right
    crop_y: float = 0.5  # 0-1: from top to bottom
    brightness: float = 0.5  # 0-1; 0.5 changes nothing
    contrast: float = 1.0  # factor
    gamma: float = 1.0  # exponent
    solarize: float = math.inf  # threshold, 0-1 or inf
    posterize: float = 0.0  # bits dropped, 0-7
    invert: bool = False


class Policy(NamedTuple):
    """An `Augment` in numbers, for compiled code. Arrays are (NUM_UNIFORMS,), one entry for each `Uniform`."""

    p_flip: float
    p_invert: float
    min_scale: float
    limits: np.ndarray  # of each operation: what its uniform number is multiplied by
    probabilities: np.ndarray  # of applying each operation; 0 for those that the policy lacks
    one_of: bool
    choices: np.ndarray  # int64, with `one_of`: the choice, from 0 to num_choices - 1, that is the operation, else -1
    num_choices: int  # the last choice is the identity


@functools.lru_cache
def in_numbers(augment: Augment) -> Policy:
    """Converts a policy for compiled code."""
    a = augment
    limit = {
        "rotate": a.max_rotate * a.mult,
        "zoom": a.max_zoom - 1,
        "warp_x": a.max_warp * a.mult,
        "warp_y": a.max_warp * a.mult,
        "shear_x": a.max_shear * a.mult,
        "shear_y": a.max_shear * a.mult,
        "translate_x": a.max_translate * a.mult,
        "translate_y": a.max_translate * a.mult,
        "brightness": 0.5 * a.max_brightness * a.mult,
        "contrast": -math.log(1 - a.max_contrast * a.mult),
        "gamma": math.log(1 + a.max_gamma * a.mult),
        "solarize": a.max_solarize,
        "posterize": a.max_posterize + 1,
    }
    limits, probabilities = np.zeros((2, NUM_UNIFORMS))
    choices = np.full(NUM_UNIFORMS, -1)
    for choice, name in enumerate(a.ops):
        op = Uniform[name]
        limits[op], choices[op] = limit[name], choice
        probabilities[op] = a.p_lighting if name in LIGHTING_OPS else a.p_affine
    return Policy(
        p_flip=float(a.p_flip),
        p_invert=float(a.p_invert),
        min_scale=float(a.min_scale),
        limits=limits,
        probabilities=probabilities,
        one_of=bool(a.one_of),
        choices=choices,
        num_choices=len(a.ops) + 1,
    )


def draw_parameters(i: int, augment: Augment, *, seed: int, epoch: int, occurrence: int = 0) -> RandomParameters:
    """Draws the random parameters of item `i` in an epoch.

    `occurrence` counts how often the item came before in the epoch, so that an image that a sampler repeats is
    augmented differently each time.
    """
    return drawn(philox.stream(philox.AUGMENT, seed, epoch), i, occurrence, in_numbers(augment))


@compilable
def drawn(stream: philox.Stream, i: int, occurrence: int, policy: Policy) -> RandomParameters:
    """The same, from the stream of the seed and epoch."""
    u = philox.uniforms(stream, i, occurrence, NUM_UNIFORMS)
    threshold = 1 - positive(Uniform.solarize, u, policy) if is_applied(Uniform.solarize, u, policy) else math.inf
    return RandomParameters(
        presize_x=u[Uniform.presize_x],
        presize_y=u[Uniform.presize_y],
        flip=u[Uniform.flip] < policy.p_flip,
        rotate=symmetric(Uniform.rotate, u, policy),
        zoom=1 + positive(Uniform.zoom, u, policy),
        zoom_x=u[Uniform.zoom_x],
        zoom_y=u[Uniform.zoom_y],
        warp_x=symmetric(Uniform.warp_x, u, policy),
        warp_y=symmetric(Uniform.warp_y, u, policy),
        shear_x=symmetric(Uniform.shear_x, u, policy),
        shear_y=symmetric(Uniform.shear_y, u, policy),
        translate_x=symmetric(Uniform.translate_x, u, policy),
        translate_y=symmetric(Uniform.translate_y, u, policy),
        crop_scale=policy.min_scale + u[Uniform.crop_scale] * (1 - policy.min_scale),
        crop_x=u[Uniform.crop_x],
        crop_y=u[Uniform.crop_y],
        brightness=0.5 + symmetric(Uniform.brightness, u, policy),
        contrast=math.exp(symmetric(Uniform.contrast, u, policy)),
        gamma=math.exp(symmetric(Uniform.gamma, u, policy)),
        solarize=threshold,
        posterize=np.floor(positive(Uniform.posterize, u, policy)),
        invert=u[Uniform.invert] < policy.p_invert,
    )


@compilable
def symmetric(op: int, u: np.ndarray, policy: Policy) -> float:
    """An operation's uniform number between -limit and limit; 0 if it is not applied."""
    return (2 * u[op] - 1) * policy.limits[op] if is_applied(op, u, policy) else 0.0


@compilable
def positive(op: int, u: np.ndarray, policy: Policy) -> float:
    """An operation's uniform number between 0 and its limit; 0 if it is not applied."""
    return u[op] * policy.limits[op] if is_applied(op, u, policy) else 0.0


@compilable
def is_applied(op: int, u: np.ndarray, policy: Policy) -> bool:
    """Whether an operation is applied to the image."""
    if policy.one_of:
        return np.floor(u[Uniform.which_op] * policy.num_choices) == policy.choices[op]
    return u[op - 1] < policy.probabilities[op]

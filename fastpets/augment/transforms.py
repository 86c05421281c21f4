"""Composes the transforms of each image: one matrix for its geometry, parameters of a lookup table for its tones.

Pixels are areas: pixel i covers [i, i + 1) and its centre is i + 0.5, in images and outputs alike, as with
`align_corners=False`. Points are columns (x, y, 1). A matrix `b_from_a` maps points of frame a to frame b, so that
names match up in a product: image_from_output = image_from_crop @ crop_from_output. There are five frames, from the
output to the pixels that are sampled:

    output   the H x W pixels of the model's input
    crop     the part of the canvas that the output shows, [-1, 1] on both axes
    canvas   the part of the image that presizing keeps, in the output's aspect ratio, [-1, 1] on both axes; flip,
             rotation, shear, zoom, translation and warp map the canvas to itself
    image    the upright image, in pixels
    source   the image as it is stored and sampled, in pixels: turned as its EXIF orientation says, and shrunk by whole
             factors if it is large

The order is that of fastai 2.8's `aug_transforms(size, min_scale=0.75)`: crop the warped, flipped and rotated canvas,
then adjust its tones.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from fastpets.augment import geometry
from fastpets.augment.geometry import Matrix, product
from fastpets.augment.lookup_tables import ADJUSTMENTS, NEUTRAL
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import Preprocessing
from fastpets.augment.random_parameters import Policy, RandomParameters, drawn, in_numbers
from fastpets.utils import philox
from fastpets.utils.compiled import compilable, compiled


class Transforms(NamedTuple):
    """The transforms of a batch: one row for each of B images.

    An output pixel is the mean of k x k bilinear samples of the source, rounded and mapped by its channel's lookup
    table, which `lookup_tables` or, on a GPU, `kernels.luts_triton` makes.
    """

    source_from_output: np.ndarray  # (B, 3, 3) float32
    samples: np.ndarray  # (B,) int32: k
    spread: np.ndarray  # (B,) float32, 0-1: side of the grid of samples, as a fraction of the output pixel's side
    adjustments: np.ndarray  # (B, 6) float64: the parameters of each image's lookup table, lookup_tables.ADJUSTMENTS
    shrink: np.ndarray  # (B, 2) int64: whole factors by which stored height and width are divided before sampling


class Fitting(NamedTuple):
    """How images are fitted to the output: that part of a `Preprocessing`, in numbers, for compiled code."""

    size: tuple[int, int]
    shrink_for: tuple[int, int]
    max_ratio: float
    method: int
    supersample: int


def transforms(
    ids: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    preprocessing: Preprocessing,
    *,
    orientations: int | np.ndarray = 1,
    shrink_for: tuple[int, int] | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    epoch: int = 0,
    occurrences: int | np.ndarray = 0,
) -> Transforms:
    """The transforms of images `ids` (B,) of upright `heights` and `widths` (B,) in pixels.

    Without `augment`, as in validation, the output is the centre of the image, resized. With it, random parameters
    depend on `seed`, `epoch`, id and `occurrences` alone; see `draw_parameters`. Images are stored as their EXIF
    `orientations` (B,) say, by default upright, and shrunk as for an output of `shrink_for`, by default
    `preprocessing.size`.
    """
    num_images = len(ids)
    items = np.empty((5, num_images), np.int64)  # always of this type: numba compiles for each
    for row, values in zip(items, (ids, occurrences, heights, widths, orientations), strict=True):
        row[:] = values
    fitting = _in_numbers(preprocessing, shrink_for or preprocessing.size)
    batch = Transforms(
        np.empty((num_images, 3, 3), np.float32),
        np.empty(num_images, np.int32),
        np.empty(num_images, np.float32),
        np.empty((num_images, len(ADJUSTMENTS)), np.float64),
        np.empty((num_images, 2), np.int64),
    )
    policy = None if augment is None else in_numbers(augment)
    _fill(batch, tuple(items), philox.stream(philox.AUGMENT, seed, epoch), policy, fitting)
    return batch


@functools.lru_cache
def _in_numbers(preprocessing: Preprocessing, shrink_for: tuple[int, int]) -> Fitting:
    """What compiled code takes of a Preprocessing."""
    max_ratio = geometry.max_ratio(shrink_for, preprocessing.presize)
    method = geometry.METHODS.index(preprocessing.presize_method)
    return Fitting(preprocessing.size, shrink_for, max_ratio, method, preprocessing.supersample)


@compiled
def _fill(
    batch: Transforms, items: tuple[np.ndarray, ...], stream: philox.Stream, policy: Policy | None, fitting: Fitting
) -> None:
    """Computes the rows of a batch; `items` are ids, occurrences, heights, widths and orientations, each (B,)."""
    matrices, samples, spreads, adjustments, shrinks = batch
    ids, occurrences, heights, widths, orientations = items
    for row in range(len(samples)):
        p = None if policy is None else drawn(stream, ids[row], occurrences[row], policy)
        composed = compose(p, heights[row], widths[row], orientations[row], fitting)
        matrix, samples[row], spreads[row], (shrinks[row, 0], shrinks[row, 1]) = composed
        for line in range(3):  # copied one by one: numba compiles assignments of slices for seconds
            for column in range(3):
                matrices[row, line, column] = matrix[line][column]
        parameters = NEUTRAL
        if p is not None:
            is_inverted = 1.0 if p.invert else 0.0
            parameters = (p.brightness, p.contrast, p.gamma, p.solarize, p.posterize, is_inverted)
        for column in range(len(NEUTRAL)):
            adjustments[row, column] = parameters[column]


@compilable
def compose(
    p: RandomParameters | None, height: int, width: int, orientation: int, fitting: Fitting
) -> tuple[Matrix, int, float, tuple[int, int]]:
    """Composes the matrix of an image, or of its centre if `p` is None: source_from_output, k, spread, shrink."""
    size, method = fitting.size, fitting.method
    if p is None:
        image_from_crop = geometry.image_from_canvas(height, width, size, method, 0.5, 0.5)
    else:
        image_from_canvas = geometry.image_from_canvas(height, width, size, method, p.presize_x, p.presize_y)
        image_from_crop = product(image_from_canvas, canvas_from_crop(p, size[1] / size[0]))
    by_height, by_width = geometry.shrink_factors(height, width, fitting.shrink_for, fitting.max_ratio, method)
    source_from_image = (1 / by_width, 0.0, 0.0), (0.0, 1 / by_height, 0.0), (0.0, 0.0, 1.0)
    source_from_output = product(source_from_image, image_from_crop, geometry.crop_from_output(size))
    k, spread = geometry.sampling(source_from_output, size, fitting.supersample, max(by_height, by_width))
    if orientation != 1:
        stored_from_upright = geometry.stored_from_upright(orientation, height // by_height, width // by_width)
        source_from_output = product(stored_from_upright, source_from_output)
        if geometry.swaps_sides(orientation):
            by_height, by_width = by_width, by_height
    return source_from_output, k, spread, (by_height, by_width)


@compilable
def canvas_from_crop(p: RandomParameters, aspect: float) -> Matrix:
    """The product of all random geometric transforms. `aspect` is the canvas's width / height."""
    return product(
        geometry.perspective(p.warp_x, p.warp_y),
        geometry.flip(p.flip),
        geometry.rotation(p.rotate, aspect),
        geometry.shear(p.shear_x, p.shear_y, aspect),
        geometry.zoom(p.zoom, p.zoom_x, p.zoom_y),
        geometry.translation(p.translate_x, p.translate_y),
        geometry.crop(p.crop_scale, p.crop_x, p.crop_y),
    )

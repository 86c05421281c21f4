"""Composes the transforms of each image: one matrix for its geometry, one lookup table (LUT) for its tones.

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

from typing import NamedTuple

import numpy as np

from fastpets.augment import geometry, lookup_tables
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import Preprocessing
from fastpets.augment.random_parameters import RandomParameters, draw_parameters


class Transforms(NamedTuple):
    """The transforms of a batch: one row for each of B images.

    An output pixel is the mean of k x k bilinear samples of the source, rounded and mapped by its channel's LUT.
    """

    source_from_output: np.ndarray  # (B, 3, 3) float32
    samples: np.ndarray  # (B,) int32: k
    spread: np.ndarray  # (B,) float32, 0-1: side of the grid of samples, as a fraction of the output pixel's side
    luts: np.ndarray  # (B, 3, 256) float32, or uint8 without normalisation
    shrink: np.ndarray  # (B, 2) int64: whole factors by which stored height and width are divided before sampling

    def select(self, rows: np.ndarray | slice) -> Transforms:
        """The rows that an index array (R,), a mask (B,) or a slice selects."""
        return Transforms(*(array[rows] for array in self))

    def replace(self, rows: int | np.ndarray, other: Transforms) -> Transforms:
        """A copy whose rows at `rows`, one index or R of them, are the R rows of `other`."""
        copies = [array.copy() for array in self]
        for copy, array in zip(copies, other, strict=True):
            copy[np.atleast_1d(rows)] = array
        return Transforms(*copies)


def transforms(
    ids: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    preprocessing: Preprocessing,
    *,
    orientations: np.ndarray | None = None,
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
    parameters = None
    if augment is not None:
        parameters = draw_parameters(ids, augment, seed=seed, epoch=epoch, occurrences=occurrences)
    if orientations is None:
        orientations = np.ones(len(ids), np.uint8)
    return compose(parameters, heights, widths, orientations, preprocessing, shrink_for or preprocessing.size)


def compose(
    parameters: RandomParameters | None,
    heights: np.ndarray,
    widths: np.ndarray,
    orientations: np.ndarray,
    preprocessing: Preprocessing,
    shrink_for: tuple[int, int],
) -> Transforms:
    """Composes matrices and LUTs of B images; if `parameters` is None, of the centre of each without augmentation."""
    size, presize, method = preprocessing.size, preprocessing.presize, preprocessing.presize_method
    if parameters is None:
        centre = np.array([0.5])
        image_from_crop = geometry.image_from_canvas(heights, widths, size, method, centre, centre)
        luts = lookup_tables.IDENTITY
    else:
        x, y = parameters.presize_x, parameters.presize_y
        image_from_canvas = geometry.image_from_canvas(heights, widths, size, method, x, y)
        image_from_crop = image_from_canvas @ canvas_from_crop(parameters, size[1] / size[0])
        luts = tone_luts(parameters)
    luts = np.broadcast_to(luts, (len(heights), 256))
    shrink = geometry.shrink_factors(heights, widths, shrink_for, presize, method)
    source_from_image = geometry.matrices([[1 / shrink[:, 1], 0, 0], [0, 1 / shrink[:, 0], 0], [0, 0, 1]])
    source_from_output = source_from_image @ image_from_crop @ geometry.crop_from_output(size)
    samples, spread = geometry.sampling(source_from_output, size, preprocessing.supersample, shrink)
    if (orientations != 1).any():
        shrunk = heights // shrink[:, 0], widths // shrink[:, 1]
        source_from_output = geometry.stored_from_upright(orientations, *shrunk) @ source_from_output
        is_turned = geometry.swaps_sides(orientations)
        shrink = np.where(is_turned[:, None], shrink[:, ::-1], shrink)
    normalization = preprocessing.normalization
    return Transforms(
        source_from_output.astype(np.float32),
        samples,
        spread,
        lookup_tables.to_uint8(luts) if normalization is None else lookup_tables.normalize(luts, *normalization),
        shrink,
    )


def canvas_from_crop(parameters: RandomParameters, aspect: float) -> np.ndarray:
    """The product of all random geometric transforms, (B, 3, 3). `aspect` is the canvas's width / height."""
    p = parameters
    return (
        geometry.perspective(p.warp_x, p.warp_y)
        @ geometry.flip(p.flip)
        @ geometry.rotation(p.rotate, aspect)
        @ geometry.shear(p.shear_x, p.shear_y, aspect)
        @ geometry.zoom(p.zoom, p.zoom_x, p.zoom_y)
        @ geometry.translation(p.translate_x, p.translate_y)
        @ geometry.crop(p.crop_scale, p.crop_x, p.crop_y)
    )


def tone_luts(parameters: RandomParameters) -> np.ndarray:
    """LUTs (B, 256) float64 of all tone adjustments, 0-1; (1, 256) if all images share one."""
    luts = lookup_tables.brightness_and_contrast(lookup_tables.IDENTITY, parameters.brightness, parameters.contrast)
    luts = lookup_tables.gamma(luts, parameters.gamma)
    luts = lookup_tables.solarize(luts, parameters.solarize)
    luts = lookup_tables.posterize(luts, parameters.posterize)
    return lookup_tables.invert(luts, parameters.invert)

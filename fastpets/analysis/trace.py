"""Traces one image through every stage of a loader, from its file to the batch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastpets.augment import lookup_tables
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from fastpets.augment.random_parameters import RandomParameters, draw_parameters
from fastpets.augment.transforms import transforms
from fastpets.data import storage
from fastpets.data.dataset import ImageDataset
from fastpets.data.image import decode_rgb
from fastpets.errors import BadFileWarning, FastpetsError, one_line, out_must_be_writable
from fastpets.loading.display import to_pixels
from fastpets.loading.loader import Loader

ANGLES = ("rotate", "shear_x", "shear_y")  # random parameters in degrees


class StageError(FastpetsError):
    """An error in a stage. The message begins with its name."""


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Turns an error that is raised inside into a StageError."""
    try:
        yield
    except (FastpetsError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise StageError(f"stage '{name}': {reason or error}") from None


def trace(
    dataset: ImageDataset,
    i: int,
    preprocessing: Preprocessing,
    augment: Augment | None,
    seed: int,
    label_origin: str,
    out: Path | None = None,
) -> Iterator[str]:
    """Yields a line for each stage of loading item `i` of a data set, whose header is good, in the first epoch.

    `label_origin` says where the label comes from. With `out`, writes a PNG file with the image and the output that is
    cut out of it. Raises FastpetsError, with the name of the stage, if one fails.
    """
    headers, path = dataset.headers, dataset.paths[i]
    assert headers is not None
    height, width = int(headers.heights[i]), int(headers.widths[i])
    yield f"item {i}"
    with stage(f"reading {path}"):
        encoded = storage.read(path)
    label = int(dataset.labels[i])
    yield f"  file     {one_line(path)}, {len(encoded):,} bytes"
    yield f"  label    {label}, {one_line(dataset.classes[label])!r}, from {one_line(label_origin)}"
    orientation = int(headers.orientations[i])
    stored = f", stored turned (EXIF {orientation}), which the loader's matrix undoes" if orientation > 1 else ""
    yield f"  decoded  upright, {width} x {height} px, 8-bit RGB{stored}"
    planned = transforms(
        np.array([i]), np.array([height]), np.array([width]), preprocessing, augment=augment, seed=seed
    )
    shrunk = (height // int(planned.shrink[0, 0]), width // int(planned.shrink[0, 1]))
    if shrunk != (height, width):
        yield f"  shrunk   to {shrunk[1]} x {shrunk[0]} px"
    yield f"  random   {', '.join(described_parameters(i, augment, seed)) or 'nothing'}"
    matrix = planned.source_from_output[0].astype(np.float64)
    rows = [" ".join(f"{value:10.5f}" for value in row) for row in matrix]
    yield "  matrix   " + "\n           ".join(rows) + "   source_from_output, in pixels"
    corners = output_corners(matrix, preprocessing.size)
    yield f"  corners  of the output in the image: {', '.join(f'({x:.0f}, {y:.0f})' for x, y in corners)}"
    yield f"  samples  {planned.samples[0]} x {planned.samples[0]} per output pixel"
    lut = lookup_tables.luts(planned.adjustments, preprocessing.normalization)[0, 0]
    yield f"  LUT      {described_lut(lut, preprocessing)}"
    with stage(f"decoding {path}"):
        images = decoded(dataset, i, preprocessing, augment, seed)
    layout = "NHWC" if preprocessing.layout == "NHWC" else "channels_last"
    yield f"  batch    images {tuple(images.shape)} {str(images.dtype)[6:]}, {layout}; labels ({len(images)},) int64"
    if out is not None:
        image = decode_rgb(encoded)
        with out_must_be_writable(out):
            draw_output(out, image, shrunk, corners, to_pixels(images, preprocessing)[0])
        yield f"  written  {out}"


def decoded(
    dataset: ImageDataset, i: int, preprocessing: Preprocessing, augment: Augment | None, seed: int
) -> torch.Tensor:
    """The batch of item `i` alone in a Loader's first epoch. Raises FastpetsError if it does not decode."""
    loader = Loader(
        dataset,
        batch_size=1,
        sampler=[i],
        augment=augment or False,
        seed=seed,
        device="cpu",
        on_bad_file="skip",  # other files may have bad headers
        **preprocessing.to_dict(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadFileWarning)
        for batch in loader:
            return batch.images
    raise FastpetsError(loader.bad_files[dataset.paths[i]])


def described_lut(lut: np.ndarray, preprocessing: Preprocessing) -> str:
    """Three values of the red channel's lookup table (256,), and the normalisation it contains."""
    values = ", ".join(f"{lut[value]:.3f}" for value in (0, 128, 255))
    if preprocessing.normalization is None:
        return f"maps red 0, 128, 255 to {values}"
    is_imagenet = preprocessing.normalization == (IMAGENET_MEAN, IMAGENET_STD)
    which = "ImageNet's mean and std" if is_imagenet else f"mean {preprocessing.mean} and std {preprocessing.std}"
    return f"maps red 0, 128, 255 to {values}, normalised by {which}"


def described_parameters(i: int, augment: Augment | None, seed: int) -> Iterator[str]:
    """The random parameters of item `i` in the first epoch: names, values and units."""
    if augment is None:
        return
    parameters, neutral = draw_parameters(i, augment, seed=seed, epoch=0), RandomParameters()
    yield f"crop of {parameters.crop_scale:.0%} of the canvas"
    for name in ("flip", "invert"):
        if getattr(parameters, name):
            yield name
    for name in augment.ops:
        value = getattr(parameters, name)
        if value != getattr(neutral, name):
            yield f"{name} {value:.3g}{' degrees' if name in ANGLES else ''}"


def output_corners(source_from_output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Positions (4, 2) of the output's corners in the source image: x and y in pixels, clockwise."""
    height, width = size
    corners = source_from_output @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    return (corners[:2] / corners[2]).T


def draw_output(
    file: Path, image: Image.Image, shrunk: tuple[int, int], corners: np.ndarray, output: np.ndarray
) -> None:
    """Draws the image, shrunk to (height, width), with the outline of the output, beside the output (H, W, 3) uint8."""
    from matplotlib.figure import Figure

    height, width = shrunk
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image.resize((width, height)), extent=(0, width, height, 0))
    left.fill(*corners.T, facecolor="none", edgecolor="tab:orange", linewidth=2)
    left.plot(*corners[0], "o", color="tab:orange")
    left.set_title("image with the outline of the output (dot: upper left corner)", fontsize=8)
    right.imshow(output)
    right.set_title("output", fontsize=8)
    figure.savefig(file, dpi=120, format="png")

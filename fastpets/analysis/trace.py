"""Traces one image through every stage of a loader, from its file to the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fastpets.augment.policy import Augment
from fastpets.augment.random_parameters import NEUTRAL, draw_parameters
from fastpets.augment.transforms import transforms
from fastpets.data import storage
from fastpets.data.headers import PILLOW
from fastpets.data.image import decode_rgb
from fastpets.errors import FastpetsError, one_line
from fastpets.loading.display import to_pixels
from fastpets.loading.loader import Loader
from fastpets.loading.reading import UnusableImageError, read_encoded


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Adds the name of the stage to an error that is raised inside."""
    try:
        yield
    except (FastpetsError, UnusableImageError) as error:
        raise FastpetsError(f"stage '{name}': {error}") from None


def trace(loader: Loader, i: int, label_origin: str, out: Path | None = None) -> Iterator[str]:
    """Yields a line for each stage that item `i` of a loader passes in the first epoch.

    `label_origin` says where the label comes from. With `out`, draws the image and the sample cut out of it as a PNG
    file. Raises FastpetsError, with the name of the stage, if one fails.
    """
    dataset, headers, path = loader.dataset, loader.headers, loader.dataset.paths[i]
    decoder, height, width = (int(column[i]) for column in (headers.decoders, headers.heights, headers.widths))
    yield f"item {i}"
    with stage(f"reading {path}"):
        encoded = storage.read(path)
        read_encoded(path, decoder, height, width)
    label = int(dataset.labels[i])
    yield f"  file     {one_line(path)}, {len(encoded):,} bytes"
    yield f"  label    {label}, {one_line(dataset.classes[label])!r}, from {one_line(label_origin)}"
    yield f"  decoded  by {'Pillow' if decoder == PILLOW else 'DALI'}, upright, {width} x {height} px, 8-bit RGB"
    planned = transforms(
        np.array([i]), np.array([height]), np.array([width]), loader.preprocessing,
        augment=loader.augment, seed=loader.sampler.seed,
    )  # fmt: skip
    shrunk = (height // int(planned.shrink[0, 0]), width // int(planned.shrink[0, 1]))
    if shrunk != (height, width):
        yield f"  shrunk   to {shrunk[1]} x {shrunk[0]} px"
    yield f"  random   {', '.join(described_parameters(i, loader.augment, loader.sampler.seed)) or 'nothing'}"
    matrix = planned.source_from_output[0].astype(np.float64)
    rows = [" ".join(f"{value:10.5f}" for value in row) for row in matrix]
    yield "  matrix   " + "\n           ".join(rows) + "   source_from_output, in pixels"
    corners = output_corners(matrix, loader.preprocessing.size)
    yield f"  corners  of the output in the image: {', '.join(f'({x:.0f}, {y:.0f})' for x, y in corners)}"
    yield f"  samples  {planned.samples[0]} x {planned.samples[0]} per output pixel"
    outputs = [f"{planned.luts[0, 0, value]:.3f}" for value in (0, 128, 255)]
    yield f"  LUT      maps red 0, 128, 255 to {', '.join(outputs)}"
    with stage(f"decoding {path}"):
        one = loader.like(dataset, sampler=[i], batch_size=1, drop_last=False, on_bad_file="raise")
        images = next(iter(one)).images
    layout = "channels_last" if images.stride(1) == 1 else "NCHW"
    yield f"  batch    images {tuple(images.shape)} {str(images.dtype)[6:]}, {layout}; labels ({len(images)},) int64"
    if out is not None:
        draw_sample(out, decode_rgb(encoded), shrunk, corners, to_pixels(images, one.preprocessing)[0])
        yield f"  drawn    in {out}"


def described_parameters(i: int, augment: Augment | None, seed: int) -> Iterator[str]:
    """The random parameters of item `i` in the first epoch, each as a name and a value."""
    if augment is None:
        return
    parameters = draw_parameters(np.array([i]), augment, seed=seed, epoch=0)
    yield f"crop of {parameters.crop_scale[0]:.0%} of the canvas"
    for name in ("flip", "invert"):
        if getattr(parameters, name)[0]:
            yield name
    for name in augment.ops:
        value = getattr(parameters, name)[0]
        if value != getattr(NEUTRAL, name)[0]:
            yield f"{name} {value:.3g}"


def output_corners(source_from_output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Positions (4, 2) of the output's corners in the source image: x and y in pixels, clockwise."""
    height, width = size
    corners = source_from_output @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    return (corners[:2] / corners[2]).T


def draw_sample(
    file: Path, image: Image.Image, shrunk: tuple[int, int], corners: np.ndarray, sample: np.ndarray
) -> None:
    """Draws the image, shrunk to (height, width), with the outline of the sample, beside the sample (H, W, 3) uint8."""
    from matplotlib.figure import Figure

    height, width = shrunk
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image.resize((width, height)), extent=(0, width, height, 0))
    left.fill(*corners.T, facecolor="none", edgecolor="tab:orange", linewidth=2)
    left.plot(*corners[0], "o", color="tab:orange")
    left.set_title("image with the outline of the sample (dot: upper left corner)", fontsize=8)
    right.imshow(sample)
    right.set_title("sample", fontsize=8)
    figure.savefig(file, dpi=120, format="png")

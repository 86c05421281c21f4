"""Traces one sample through every stage, from its file to the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fastpets.augment.policy import Augment
from fastpets.augment.transforms import IDENTITY, random_parameters, transforms
from fastpets.data import storage
from fastpets.data.dataset import ImageDataset
from fastpets.data.headers import PILLOW
from fastpets.data.image import decode_rgb
from fastpets.errors import FastpetsError, InvalidArgumentError, one_line
from fastpets.loading.display import to_pixels
from fastpets.loading.loader import Loader
from fastpets.loading.reading import UnusableImage, read_encoded


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Prefixes errors with the name of the stage in which they are raised."""
    try:
        yield
    except (FastpetsError, UnusableImage) as error:
        raise FastpetsError(f"stage '{name}': {error}") from None


def trace_sample(train: Loader, i: int, label_pattern: str, out: Path | None = None) -> None:
    """Prints what every stage makes of item `i` of a training set in epoch 0; draws crop and sample into `out`."""
    path, label, headers = train.dataset.paths[i], int(train.dataset.labels[i]), train.headers
    decoder, height, width = (int(column[i]) for column in (headers.decoders, headers.heights, headers.widths))
    print(f"\nOne sample: item {i}")
    with stage(f"reading {path}"):
        encoded = storage.read(path)
        read_encoded(path, decoder, height, width)
    print(f"  file     {one_line(path)}, {len(encoded):,} bytes")
    source = label_source(train.dataset, path, label_pattern)
    print(f"  label    {one_line(source)}: {one_line(train.classes[label])!r}, number {label}")
    print(f"  decoded  by {'Pillow' if decoder == PILLOW else 'DALI'}, upright, {width} x {height} px, 8-bit RGB")
    todo = transforms(
        np.array([i]), np.array([height]), np.array([width]), train.preprocessing,
        augment=train.augment, seed=train.sampler.seed,
    )  # fmt: skip
    shrunk = (height // int(todo.shrink[0, 0]), width // int(todo.shrink[0, 1]))
    if shrunk != (height, width):
        print(f"  shrunk   to {shrunk[1]} x {shrunk[0]} px")
    print(f"  random   {', '.join(described_parameters(i, train.augment, train.sampler.seed)) or 'nothing'}")
    matrix = todo.source_from_output[0].astype(np.float64)
    rows = [" ".join(f"{value:10.5f}" for value in row) for row in matrix]
    print("  matrix   " + "\n           ".join(rows) + "   source_from_output, in pixels")
    corners = outline(matrix, train.preprocessing.size)
    print(f"  crop     its corners lie at {', '.join(f'({x:.0f}, {y:.0f})' for x, y in corners)} of the image")
    print(f"  samples  {todo.samples[0]} x {todo.samples[0]} per output pixel")
    ends = [f"{todo.luts[0, 0, value]:.3f}" for value in (0, 128, 255)]
    print(f"  LUT      red 0, 128, 255 become {', '.join(ends)}")
    with stage(f"decoding {path}"):
        one = train.like(train.dataset, sampler=[i], batch_size=1, drop_last=False, on_bad_file="raise")
        images = next(iter(one)).images
    layout = "channels_last" if images.stride(1) == 1 else "NCHW"
    print(f"  batch    images {tuple(images.shape)} {str(images.dtype)[6:]}, {layout}; labels ({len(images)},) int64")
    if out is not None:
        draw(out, decode_rgb(encoded), shrunk, corners, to_pixels(images, one.preprocessing)[0])
        print(f"  {out} shows the crop and the sample")


def find_item(part: str | None, train: Loader) -> int:
    """Returns the first usable item whose path contains `part`. Raises InvalidArgumentError if there is none."""
    usable = np.flatnonzero(train.headers.usable).tolist()
    found = next((i for i in usable if part is None or part in train.dataset.paths[i]), None)
    if found is None:
        raise InvalidArgumentError(f"image: {part!r} is in no path of the {len(usable)} training images")
    return found


def label_source(dataset: ImageDataset, path: str, label_pattern: str) -> str:
    """Returns a phrase for where an image's label was taken from."""
    if dataset.label_from == "table":
        return f"column label of {dataset.root}"
    if dataset.label_from == "shard":
        return "the .cls file beside it in the shard"
    if dataset.label_from == "folder":
        return f"its folder {Path(path).parent.name!r}"
    return f"pattern {label_pattern} on {storage.name_of(path)!r}"


def described_parameters(i: int, augment: Augment | None, seed: int) -> Iterator[str]:
    """Yields the random parameters of item `i` in epoch 0, as text."""
    if augment is None:
        return
    u, parameters = random_parameters(np.array([i]), augment, seed, 0, 0)
    area = augment.min_scale + float(u["crop_scale"][0]) * (1 - augment.min_scale)
    yield f"crop of {area:.0%} of the canvas"
    for name in ("flip", "invert"):
        if parameters[name][0]:
            yield name
    for name, identity in IDENTITY.items():
        if name in augment.changes and parameters[name][0] != identity:
            yield f"{name} {parameters[name][0]:.3g}"


def outline(matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns where the output's four corners lie in the source: (4, 2), x and y."""
    height, width = size
    corners = matrix @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    return (corners[:2] / corners[2]).T


def draw(file: Path, image: Image.Image, shrunk: tuple[int, int], corners: np.ndarray, sample: np.ndarray) -> None:
    """Draws the image with the outline of the crop, beside the sample."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image.resize((shrunk[1], shrunk[0])), extent=(0, shrunk[1], shrunk[0], 0))
    left.fill(*corners.T, facecolor="none", edgecolor="tab:orange", linewidth=2)
    left.plot(*corners[0], "o", color="tab:orange")
    left.set_title("the image and the outline of the sample (dot: its upper left corner)", fontsize=8)
    right.imshow(sample)
    right.set_title("the sample", fontsize=8)
    figure.savefig(file, dpi=120, format="png")

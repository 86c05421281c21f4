"""One image followed through every stage, from its file to the batch, as the command `summary` prints it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fastpets.augment.transforms import NEUTRAL, draws
from fastpets.data import storage
from fastpets.data.headers import PILLOW
from fastpets.errors import FastpetsError, one_line
from fastpets.loading.fetch import transforms_of
from fastpets.loading.reading import UnusableImage, pillow_rgb, read_encoded
from fastpets.utils.figures import visible

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader
    from fastpets.summary import SummaryConfig


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Has an error within say in which stage it came."""
    try:
        yield
    except (FastpetsError, UnusableImage) as error:
        raise FastpetsError(f"stage '{name}': {error}") from None


def follow(config: SummaryConfig, train: Loader) -> None:
    """Prints what becomes of one image of a training set in its first epoch."""
    i = picked(config.image, train)
    path, label, headers = train.dataset.paths[i], int(train.dataset.labels[i]), train.headers
    kind, height, width = (int(facts[i]) for facts in (headers.decoders, headers.heights, headers.widths))
    print(f"\nOne sample: item {i}")
    with stage(f"reading {path}"):
        encoded = storage.read(path)
        read_encoded(path, kind, height, width)
    print(f"  file     {one_line(path)}, {len(encoded):,} bytes")
    print(
        f"  label    {one_line(how_labelled(config, train, path))}: {one_line(train.classes[label])!r}, number {label}"
    )
    print(f"  decoded  by {'Pillow' if kind == PILLOW else 'DALI'}, upright, {width} x {height} px, 8-bit RGB")
    todo = transforms_of(train, np.array([i]), 0, 0)
    shrunk = (height // int(todo.shrink[0, 0]), width // int(todo.shrink[0, 1]))
    if shrunk != (height, width):
        print(f"  shrunk   to {shrunk[1]} x {shrunk[0]} px")
    print(f"  draws    {', '.join(drawn(train, i)) or 'none'}")
    matrix = todo.source_from_output[0].astype(np.float64)
    rows = [" ".join(f"{value:10.5f}" for value in row) for row in matrix]
    print("  matrix   " + "\n           ".join(rows) + "   image from output, in pixels")
    corners = outline(matrix, train.preprocessing.size)
    print(f"  crop     its corners lie at {', '.join(f'({x:.0f}, {y:.0f})' for x, y in corners)} of the image")
    print(f"  samples  {todo.samples[0]} x {todo.samples[0]} to an output pixel")
    ends = [f"{todo.luts[0, 0, value]:.3f}" for value in (0, 128, 255)]
    print(f"  table    red 0, 128, 255 become {', '.join(ends)}")
    with stage(f"decoding {path}"):
        one = train.like(train.dataset, sampler=[i], batch_size=1, drop_last=False, on_bad_file="raise")
        images = next(iter(one)).images
    layout = "channels_last" if images.stride(1) == 1 else "NCHW"
    print(f"  batch    images {tuple(images.shape)} {str(images.dtype)[6:]}, {layout}; labels ({len(images)},) int64")
    if config.out is not None:
        draw(config.out, Image.fromarray(np.asarray(pillow_rgb(encoded))), shrunk, corners, visible(one, images)[0])
        print(f"  {config.out} shows the crop and the sample")


def picked(part: str | None, train: Loader) -> int:
    """The item whose path has this part, or the first one. Raises FastpetsError if there is none."""
    usable = np.flatnonzero(train.usable).tolist()
    found = next((i for i in usable if part is None or part in train.dataset.paths[i]), None)
    if found is None:
        raise FastpetsError(f"--image {part}: in no path of the {len(usable)} images to train on")
    return found


def how_labelled(config: SummaryConfig, train: Loader, path: str) -> str:
    """What an image's label was taken from."""
    label_from = train.dataset.label_from
    if label_from == "table":
        return f"column label of {config.labels or config.data}"
    if label_from == "shard":
        return "the .cls file beside it in the shard"
    if label_from == "folder":
        return f"its folder {Path(path).parent.name!r}"
    return f"pattern {config.label_pattern} on {storage.name_of(path)!r}"


def drawn(train: Loader, i: int) -> Iterator[str]:
    """What of the augmentation item `i` undergoes in the first epoch, in words."""
    if train.augment is None:
        return
    u, todo = draws(np.array([i]), train.augment, train.position.seed, 0, 0)
    area = train.augment.min_scale + float(u["crop_scale"][0]) * (1 - train.augment.min_scale)
    yield f"crop of {area:.0%} of the canvas"
    for name in ("flip", "invert"):
        if todo[name][0]:
            yield name
    for name, neutral in NEUTRAL.items():
        if name in train.augment.changes and todo[name][0] != neutral:
            yield f"{name} {todo[name][0]:.3g}"


def outline(matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where the output's four corners (4, 2), x and y, lie in the image."""
    height, width = size
    corners = matrix @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    return (corners[:2] / corners[2]).T


def draw(file: Path, image: Image.Image, shrunk: tuple[int, int], corners: np.ndarray, sample: np.ndarray) -> None:
    """The image with the crop's outline, and the sample that is cut out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image.resize((shrunk[1], shrunk[0])), extent=(0, shrunk[1], shrunk[0], 0))
    left.fill(*corners.T, facecolor="none", edgecolor="tab:orange", linewidth=2)
    left.plot(*corners[0], "o", color="tab:orange")
    left.set_title("the image, and where the sample lies (dot: its upper left corner)", fontsize=8)
    right.imshow(sample)
    right.set_title("the sample", fontsize=8)
    figure.savefig(file, dpi=120, format="png")

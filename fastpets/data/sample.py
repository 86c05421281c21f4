"""A small labelled data set that needs no network: drawn shapes.

Each of the eight classes is one shape with one texture. Colours are random, so that they do not tell the classes apart.
The files vary as real ones do: JPEGs of many sizes, baseline and progressive, grey and CMYK, some with an EXIF
orientation, and PNGs and GIFs named .jpg.
"""

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from fastpets.utils.progress import track
from fastpets.utils.system import cache_dir, cache_must_be_writable, num_processors

VERSION = 1
SEED = 0
IMAGES_PER_CLASS = 60
SIDE_PX = (60, 2000)
STORED_FROM_UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
Plane = np.ndarray  # (H, W) float64: one coordinate of each pixel, in units of the shape's radius

SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": lambda x, y: x**2 + y**2 < 0.9,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "triangle": lambda x, y: np.maximum(y, np.maximum(0.866 * x - y / 2, -0.866 * x - y / 2)) < 0.5,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    "ring": lambda x, y: abs(x**2 + y**2 - 0.65) < 0.35,
    "bar": lambda x, y: (abs(x) < 1.1) & (abs(y) < 0.4),
    "star": lambda x, y: np.hypot(x, y) < 0.65 + 0.35 * np.cos(5 * np.arctan2(y, x)),
    "crescent": lambda x, y: (x**2 + y**2 < 1) & ((x - 0.5) ** 2 + y**2 > 0.5),
}
TEXTURES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "plain": lambda x, y: np.zeros(x.shape, bool),
    "striped": lambda x, y: np.sin(2 * np.pi * x) > 0,
    "dotted": lambda x, y: (x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.12,
    "halved": lambda x, y: x > 0.25,
    "ringed": lambda x, y: np.sin(2 * np.pi * np.hypot(x, y)) > 0,
    "gridded": lambda x, y: np.minimum(x % 1, y % 1) < 0.2,
    "wavy": lambda x, y: np.sin(2 * np.pi * x + 2 * np.sin(2 * np.pi * y)) > 0,
    "sliced": lambda x, y: np.sin(5 * np.arctan2(y, x)) > 0,
}
CLASSES = tuple(f"{texture}_{shape}" for texture, shape in zip(TEXTURES, SHAPES, strict=True))


@cache_must_be_writable()
def sample_folder() -> Path:
    """The folder of the data set in the user's cache folder; drawn on the first call, which takes seconds."""
    folder = cache_dir() / f"sample-v{VERSION}-seed{SEED}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
            drawn = Path(staging, "drawn")
            drawn.mkdir()
            draw_images(drawn)
            os.replace(drawn, folder)
    return folder


def draw_images(folder: Path) -> None:
    """Draws all images into a folder, and adds a text file, which data sets ignore."""
    jobs = [(name, number) for name in CLASSES for number in range(IMAGES_PER_CLASS)]

    def draw(job: tuple[str, int]) -> None:
        name, number = job
        random = np.random.default_rng([SEED, CLASSES.index(name), number])
        _save(draw_image(name, random), folder / f"{name}_{number:03}.jpg", number, random)

    with ThreadPoolExecutor(num_processors()) as pool:
        list(track(pool.map(draw, jobs), "drawing images", len(jobs)))
    (folder / "about.txt").write_text(
        "Shapes drawn by fastpets.data.sample. This file is not an image and is ignored.\n"
    )


def draw_image(name: str, random: np.random.Generator) -> Image.Image:
    """Draws an image of the class `name`, "texture_shape", in random colours, size and position."""
    texture, shape = name.split("_")
    low, high = np.log(SIDE_PX)
    longer = int(np.exp(low + (high - low) * random.beta(2, 3)))
    shorter = max(SIDE_PX[0], int(longer * random.uniform(0.7, 1)))
    width, height = (longer, shorter) if random.random() < 0.5 else (shorter, longer)

    radius = shorter * random.uniform(0.36, 0.5)
    centre_x, centre_y = (
        width / 2 + random.normal(0, 0.03) * shorter,
        height / 2 + random.normal(0, 0.03) * shorter,
    )
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:height, 0:width]
    dx, dy = (columns + 0.5 - centre_x) / radius, (rows + 0.5 - centre_y) / radius
    x, y = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx

    periods = random.uniform(1.6, 2.2)
    inside, marked = SHAPES[shape](x, y), TEXTURES[texture](periods * x + 0.25, periods * y + 0.25)
    ground, body, mark = _colours(random)
    pixels = np.where(inside[..., None], np.where(marked[..., None], mark, body), ground)
    shade = 1 + 0.15 * (random.uniform(-1, 1) * dx + random.uniform(-1, 1) * dy).clip(-1.5, 1.5)
    pixels = pixels * shade[..., None] + random.normal(0, 5, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _colours(random: np.random.Generator) -> np.ndarray:
    """Three random colours (3, 3) whose brightness differs clearly."""
    while True:
        colours = random.uniform(20, 235, (3, 3))
        luma = colours @ [0.299, 0.587, 0.114]
        if min(abs(luma[0] - luma[1]), abs(luma[1] - luma[2]), abs(luma[0] - luma[2])) > 60:
            return colours


def _save(image: Image.Image, path: Path, number: int, random: np.random.Generator) -> None:
    """Saves an image in the format that its number within the class determines."""
    match number:
        case 0:
            image.convert("L").save(path, "JPEG")
        case 1:
            image.convert("CMYK").save(path, "JPEG")
        case 2:
            image.convert("RGBA").save(path, "PNG")
        case 3:
            image.save(path, "GIF")
        case 4 | 5 | 6:
            image.save(path, "JPEG", progressive=True, quality=90)
        case 7 | 8 | 9 | 10:
            orientation = int(random.integers(2, 9))
            exif = Image.Exif()
            exif[Base.Orientation] = orientation
            image.transpose(STORED_FROM_UPRIGHT[orientation]).save(path, "JPEG", exif=exif, quality=90)
        case _:
            quality, subsampling = int(random.integers(60, 96)), int(random.integers(0, 3))
            image.save(path, "JPEG", quality=quality, subsampling=subsampling)

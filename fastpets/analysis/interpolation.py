"""The figure that shows what repeated interpolation costs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastpets import kernels
from fastpets.augment import geometry
from fastpets.data import storage
from fastpets.data.image import decode_rgb
from fastpets.utils.figures import image_grid


def interpolation_figure(image: Image.Image | str | Path, size: int = 224) -> Image.Image:
    """What repeated interpolation costs: an image or a file, rotated, zoomed and warped at once, and step by step.

    Left, all transforms are one matrix and each pixel is interpolated once, as a Loader does it. Right, cropping, warp,
    rotation and zoom are interpolated one after another. Both images have `size` x `size` px.
    """
    rgb = image.convert("RGB") if isinstance(image, Image.Image) else decode_rgb(storage.read(str(image)))
    pixels = torch.from_numpy(np.asarray(rgb).copy())
    height, width = pixels.shape[:2]
    image_from_canvas = np.array(geometry.image_from_canvas(height, width, (size, size), geometry.CROP, 0.5, 0.5))
    rotation = np.array(geometry.rotation(30))
    zoom = np.array(geometry.zoom(1.2, 0.5, 0.5))
    warp = np.array(geometry.perspective(-0.2, 0.2))
    canvas_from_output = np.array(geometry.crop_from_output((size, size)))

    def warped(source: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
        return rendered(source, matrix, size, supersample=1)

    at_once = warped(pixels, image_from_canvas @ warp @ rotation @ zoom @ canvas_from_output)
    step_by_step = warped(pixels, image_from_canvas @ canvas_from_output)
    output_from_canvas = np.linalg.inv(canvas_from_output)
    for matrix in (warp, rotation, zoom):
        step_by_step = warped(step_by_step, output_from_canvas @ matrix @ canvas_from_output)
    return image_grid([at_once.numpy(), step_by_step.numpy()], ["one interpolation", "one after another"])


def rendered(image: torch.Tensor, image_from_output: np.ndarray, size: int, supersample: int) -> torch.Tensor:
    """Renders an image (H, W, 3) uint8 as the loader does, shrunk if it is large, then warped: (S, S, 3) uint8."""
    height, width = image.shape[:2]
    max_ratio = geometry.max_ratio((size, size), None)
    by_height, by_width = geometry.shrink_factors(height, width, (size, size), max_ratio, geometry.CROP)
    if max(by_height, by_width) > 1:
        image = kernels.shrink(image, by_height, by_width)
    matrix = np.diag([1 / by_width, 1 / by_height, 1]) @ image_from_output
    identity_luts = torch.arange(256).to(torch.uint8).repeat(1, 3, 1)
    out = torch.empty(1, size, size, 3, dtype=torch.uint8)
    k, spread = geometry.sampling(matrix.tolist(), (size, size), supersample, max(by_height, by_width))
    grid = torch.tensor([k], dtype=torch.int32), torch.tensor([spread])
    kernels.warp([image], torch.from_numpy(matrix.astype(np.float32))[None], *grid, identity_luts, out)
    return out[0]

"""Renders images by supersampling, which is the reference of the fidelity benchmark."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import grid_sample


def supersampled_bicubic(
    image: torch.Tensor, image_from_output: np.ndarray, size: int, samples: int = 8
) -> torch.Tensor:
    """The reference: the mean of `samples` x `samples` bicubic samples per output pixel. (S, S, 3) float32, 0-255."""
    height, width = image.shape[:2]
    centres = (torch.arange(size * samples) + 0.5) / samples
    planes = image.permute(2, 0, 1)[None].float()
    matrix = torch.from_numpy(image_from_output)
    rows = []
    for some in centres.split(32 * samples):  # blocks of rows, to limit memory
        y, x = torch.meshgrid(some.double(), centres.double(), indexing="ij")
        x, y, w = (torch.stack([x, y, torch.ones_like(x)], -1) @ matrix.T).unbind(-1)
        grid = torch.stack([2 * x / (w * width) - 1, 2 * y / (w * height) - 1], -1).float()
        values = grid_sample(planes, grid[None], mode="bicubic", padding_mode="reflection", align_corners=False)[0]
        rows.append(values.clamp(0, 255).unflatten(1, (-1, samples)).unflatten(3, (-1, samples)).mean((2, 4)))
    return torch.cat(rows, dim=1).permute(1, 2, 0)


def psnr(pixels: torch.Tensor, reference: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of values from 0 to 255."""
    return float(10 * torch.log10(255**2 / (pixels.float() - reference).square().mean()))


def mosaic(paths: Sequence[str], width: int, height: int) -> torch.Tensor:
    """64 images side by side, 8 by 8: a large image with real detail everywhere."""
    whole = Image.new("RGB", (width, height))
    for number, path in enumerate(paths):
        tile = Image.open(path).convert("RGB").resize((width // 8, height // 8), Image.Resampling.LANCZOS)
        whole.paste(tile, (number % 8 * (width // 8), number // 8 * (height // 8)))
    return torch.from_numpy(np.array(whole))

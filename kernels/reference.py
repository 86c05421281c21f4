"""The specification of the kernels in plain torch, with which tests compare them."""

from collections.abc import Sequence

import torch
from torch.nn.functional import grid_sample

PADDING_MODES = {"reflect": "reflection", "border": "border", "zeros": "zeros"}  # as grid_sample names them


def warp(
    images: Sequence[torch.Tensor],
    source_from_output: torch.Tensor,
    samples: torch.Tensor,
    spread: torch.Tensor,
    size: tuple[int, int],
    borders: str = "reflect",
) -> torch.Tensor:
    """Warps B images (H, W, 3) uint8, each by its matrix, to (B, *size, 3) float64, 0-255, not rounded.

    Output pixel (column i, row j) is the mean of k x k bilinear samples, k being the image's entry in `samples`. Sample
    (s, t), with s and t from 0 to k - 1, is taken at the image's point

        source_from_output @ (i + at(s), j + at(t), 1), at(s) = 0.5 + spread * (s - (k - 1) / 2) / k

    where pixel p covers [p, p + 1) and so has its centre at p + 0.5. Beyond its edges the image is mirrored at them
    (`borders` "reflect"), continues with its outermost pixels ("border") or is 0 ("zeros").
    """
    warped = []
    matrices, spreads = source_from_output.double(), spread.tolist()
    for image, matrix, k, width_of_samples in zip(images, matrices, samples.tolist(), spreads, strict=True):
        at = 0.5 + width_of_samples * (torch.arange(k, dtype=torch.float64) - (k - 1) / 2) / k
        rows, columns = ((torch.arange(length)[:, None] + at).flatten() for length in size)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        x, y, w = (torch.stack([x, y, torch.ones_like(x)], dim=-1) @ matrix.T).unbind(-1)
        height, width = image.shape[:2]
        grid = torch.stack([2 * x / (w * width) - 1, 2 * y / (w * height) - 1], dim=-1)
        planes = image.permute(2, 0, 1).double()
        values = grid_sample(planes[None], grid[None], padding_mode=PADDING_MODES[borders], align_corners=False)[0]
        warped.append(values.unfold(1, k, k).unfold(2, k, k).mean((-2, -1)).permute(1, 2, 0))
    return torch.stack(warped)


def look_up(pixels: torch.Tensor, luts: torch.Tensor) -> torch.Tensor:
    """Maps pixels (B, H, W, 3) uint8 through luts (B, 3, 256): (B, H, W, 3) of luts' dtype. Runs on any device."""
    batch = torch.arange(pixels.shape[0], device=pixels.device)[:, None, None, None]
    channel = torch.arange(3, device=pixels.device)
    return luts[batch, channel, pixels.long()]


def shrink(image: torch.Tensor, by_height: int, by_width: int) -> torch.Tensor:
    """Shrinks an image (H, W, 3) uint8 to (H // by_height, W // by_width, 3): the rounded mean of each block of pixels.

    Incomplete blocks at the bottom and at the right are dropped. Runs on any device.
    """
    height, width = image.shape[0] // by_height, image.shape[1] // by_width
    blocks = image[: height * by_height, : width * by_width].view(height, by_height, width, by_width, 3)
    return blocks.double().mean((1, 3)).round().to(torch.uint8)

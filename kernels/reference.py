"""The specification of warp and look-up in plain torch, for tests and benchmarks to compare with."""

from collections.abc import Sequence

import torch
from torch.nn.functional import grid_sample


def warp(pictures: Sequence[torch.Tensor], source_from_output: torch.Tensor, size: int) -> torch.Tensor:
    """Each picture seen through its matrix: B pictures (H, W, 3) uint8, (B, 3, 3) to (B, S, S, 3) uint8.

    Output pixel (column i, row j) takes the bilinear value of the picture at source_from_output @ (i + 0.5,
    j + 0.5, 1), where pixel k of the picture covers [k, k + 1); beyond its edges the picture is reflected about
    them. Computed in float64, then rounded to the nearest 8-bit value.
    """
    centres = torch.arange(size, dtype=torch.float64) + 0.5
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    output = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1)  # (S, S, 3): x, y, 1
    warped = []
    for picture, matrix in zip(pictures, source_from_output.double(), strict=True):
        x, y, w = (output @ matrix.T).unbind(-1)
        height, width = picture.shape[:2]
        grid = torch.stack([2 * x / (w * width) - 1, 2 * y / (w * height) - 1], dim=-1)
        planes = picture.permute(2, 0, 1).double()
        values = grid_sample(planes[None], grid[None], padding_mode="reflection", align_corners=False)[0]
        warped.append(values.permute(1, 2, 0).round().to(torch.uint8))
    return torch.stack(warped)


def look_up(pixels: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """pixels (B, S, S, 3) uint8 through tables (B, 3, 256), on any device: (B, S, S, 3) in the tables' dtype."""
    batch = torch.arange(pixels.shape[0], device=pixels.device)[:, None, None, None]
    channel = torch.arange(3, device=pixels.device)
    return tables[batch, channel, pixels.long()]

"""From warped pictures to what a model takes: the look-up, on whichever device the pixels are."""

import torch

from fastpets.kernels import reference


def look_up(pixels: torch.Tensor, tables: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Each 8-bit value replaced by its picture's and channel's table entry.

    pixels (B, S, S, 3) uint8 and tables (B, 3, 256) float32, on one device, to (B, 3, S, S) in `dtype` and in
    channels_last layout, in memory of its own. Raises ValueError on other shapes.
    """
    batch_size = pixels.shape[0]
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise ValueError(f"pixels: {pixels.dtype} {tuple(pixels.shape)}, expected uint8 (B, S, S, 3)")
    if tables.dtype != torch.float32 or tables.shape != (batch_size, 3, 256):
        raise ValueError(f"tables: {tables.dtype} {tuple(tables.shape)}, expected float32 ({batch_size}, 3, 256)")
    tables = tables.to(dtype)
    if pixels.device.type == "cpu":
        from fastpets.kernels import lookup_cpu

        values = lookup_cpu.look_up(pixels, tables)
    else:
        values = reference.look_up(pixels, tables)
    return values.permute(0, 3, 1, 2)

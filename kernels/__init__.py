"""From warped pictures to what a model takes: the look-up, on whichever device the pixels are."""

import torch

from fastpets.kernels import reference


def look_up(pixels: torch.Tensor, tables: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Each 8-bit value replaced by its picture's and channel's table entry, written into `out`.

    pixels (B, S, S, 3) uint8, tables (B, 3, 256) float32 and out (B, S, S, 3) of any float type, on one device. Returns
    out as (B, 3, S, S), in channels_last layout. Raises ValueError on other shapes and types.
    """
    batch_size = pixels.shape[0]
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise ValueError(f"pixels: {pixels.dtype} {tuple(pixels.shape)}, expected uint8 (B, S, S, 3)")
    if tables.dtype != torch.float32 or tables.shape != (batch_size, 3, 256):
        raise ValueError(f"tables: {tables.dtype} {tuple(tables.shape)}, expected float32 ({batch_size}, 3, 256)")
    if not out.dtype.is_floating_point or out.shape != pixels.shape:
        raise ValueError(f"out: {out.dtype} {tuple(out.shape)}, expected floats {tuple(pixels.shape)}")
    tables = tables.to(out.dtype)
    if out.device.type == "cpu":
        from fastpets.kernels import lookup_cpu

        lookup_cpu.look_up(pixels, tables, out)
    else:
        out.copy_(reference.look_up(pixels, tables))
    return out.permute(0, 3, 1, 2)

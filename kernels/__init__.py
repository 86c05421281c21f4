"""From decoded images to what a model takes, in one pass: on a GPU by Triton, on a CPU by numba."""

from collections.abc import Sequence

import torch

from fastpets.kernels import reference
from fastpets.kernels.memory import Packed, moved

__all__ = ["BORDERS", "DTYPES", "Packed", "moved", "shrink", "warp"]

BORDERS = ("reflect", "border", "zeros")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)


def warp(
    images: Sequence[torch.Tensor],
    source_from_output: torch.Tensor,
    samples: torch.Tensor,
    spread: torch.Tensor,
    luts: torch.Tensor,
    out: torch.Tensor,
    borders: str = "reflect",
) -> torch.Tensor:
    """Each image seen through its matrix, its values replaced by its table's; what that means, `reference` says.

    B images (H, W, 3) uint8, contiguous, each of its own size, one by one or `Packed`; source_from_output (B, 3, 3)
    float32; samples k (B,) int32, at least 1, for the mean of k x k, on a grid over the middle `spread` (B,) float32 of
    each side of the output pixel; luts (B, 3, 256) and out (B, H, W, 3) of one type: float32, float16, bfloat16 or
    uint8. The mean is rounded to the nearest 8-bit value, ties to even, then looked up. Images and out lie on one
    device, the rest on the CPU. Returns out as (B, 3, H, W), in channels_last layout. Raises ValueError on other shapes
    and types.
    """
    _check(images, source_from_output, samples, spread, luts, out, borders)
    if out.device.type == "cpu":
        from fastpets.kernels import warp_cpu

        warp_cpu.warp(images, source_from_output, samples, spread, luts, out, borders)
    else:
        from fastpets.kernels import warp_triton

        warp_triton.warp(images, source_from_output, samples, spread, luts, out, borders)
    return out.permute(0, 3, 1, 2)


def shrink(image: torch.Tensor, by_height: int, by_width: int) -> torch.Tensor:
    """An image (H, W, 3) uint8 at (H // by_height, W // by_width): the rounded mean of each block of pixels.

    What is left at the right and at the bottom, less than a block, is cut off. On the image's device.
    """
    if image.device.type == "cpu":
        from fastpets.kernels import shrink_cpu

        return shrink_cpu.shrink(image, by_height, by_width)
    return reference.shrink(image, by_height, by_width, torch.float32)


def _check(
    images: Sequence[torch.Tensor],
    source_from_output: torch.Tensor,
    samples: torch.Tensor,
    spread: torch.Tensor,
    luts: torch.Tensor,
    out: torch.Tensor,
    borders: str,
) -> None:
    num_images = len(images)
    for image in [] if isinstance(images, Packed) else images:
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.is_contiguous():
            raise ValueError(f"an image: {_described(image)}, expected contiguous uint8 (H, W, 3)")
        if 0 in image.shape or image.numel() >= 2**31:
            raise ValueError(f"an image: {_described(image)}, expected 1 to 2**31 - 1 values")
    expected = {
        "source_from_output": (source_from_output, torch.float32, (num_images, 3, 3)),
        "samples": (samples, torch.int32, (num_images,)),
        "spread": (spread, torch.float32, (num_images,)),
        "luts": (luts, out.dtype, (num_images, 3, 256)),
        "out": (out, out.dtype, (num_images, *out.shape[1:3], 3)),
    }
    for name, (tensor, dtype, shape) in expected.items():
        if tensor.dtype != dtype or tuple(tensor.shape) != shape or not tensor.is_contiguous():
            raise ValueError(f"{name}: {_described(tensor)}, expected contiguous {dtype} {shape}")
    if out.dtype not in DTYPES:
        raise ValueError(f"out: {out.dtype}, expected one of {', '.join(map(str, DTYPES))}")
    if borders not in BORDERS:
        raise ValueError(f"borders: {borders!r}, expected one of {', '.join(BORDERS)}")


def _described(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}{'' if tensor.is_contiguous() else ' not contiguous'}"

"""Kernels that turn decoded images into a model's input in one pass, for CPUs (numba) and NVIDIA GPUs (Triton).

This module chooses the kernel by the images' device, and checks shapes and types. In reading order:

    reference.py    the specification, in plain torch and float64; tests compare the kernels with it
    warp_cpu.py     the warp on a CPU
    warp_triton.py  the warp on a GPU
    shrink_cpu.py   shrinking large images on a CPU
    memory.py       images packed into one block of memory, and copies to a device
"""

from collections.abc import Sequence

import torch

from fastpets.kernels import reference
from fastpets.kernels.memory import PackedImages, to_device

__all__ = ["BORDERS", "DTYPES", "PackedImages", "shrink", "to_device", "warp"]

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
    """Warps each image by its matrix and looks the result up in its lookup tables (LUTs), as `reference` specifies.

    An output pixel is the mean of k x k bilinear samples of the image, rounded to the nearest 8-bit value (ties to
    even), then looked up in its channel's LUT. Images and `out` lie on one device, all else on the CPU.

    Args:
        images: B of (H, W, 3) uint8, contiguous, each of its own size; a sequence of tensors or `PackedImages`.
        source_from_output: (B, 3, 3) float32, homographies from output pixels to image pixels.
        samples: (B,) int32, at least 1: k.
        spread: (B,) float32, 0-1: side of the centred grid of samples, as a fraction of the output pixel's side.
        luts: (B, 3, 256) of out's type.
        out: (B, H, W, 3) float32, float16, bfloat16 or uint8, contiguous; overwritten.
        borders: what lies beyond an image: "reflect", "border" or "zeros".

    Returns `out` as (B, 3, H, W) in channels_last memory format. Raises ValueError for other shapes, types or borders.
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
    """Shrinks an image (H, W, 3) uint8 to (H // by_height, W // by_width, 3): the rounded mean of each block of pixels.

    Incomplete blocks at the right and at the bottom are cut off. Runs on the image's device.
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
    for image in [] if isinstance(images, PackedImages) else images:
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.is_contiguous():
            raise ValueError(f"images: {_described(image)}, expected contiguous uint8 (H, W, 3)")
        if 0 in image.shape or image.numel() >= 2**31:
            raise ValueError(f"images: {_described(image)}, expected 1 to 2**31 - 1 values each")
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

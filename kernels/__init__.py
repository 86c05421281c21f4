"""Image kernels: `warp` warps a batch and maps it through lookup tables in one pass; `shrink` shrinks large images.

Triton compiles them for a GPU, numba for a CPU. In reading order:

    reference.py      the specification in plain torch, which tests compare both implementations with
    __init__.py       the interface: checks the arguments and chooses the implementation by device
    memory.py         images packed into one block of memory; addresses; copies to a device
    warp_cpu.py       `warp` on a CPU, one image after another
    warp_triton.py    `warp` on a GPU, the whole batch in one launch
    luts_triton.py    the lookup tables of a batch, made on a GPU
    shrink_cpu.py     `shrink` on a CPU, one image after another
    shrink_triton.py  `shrink` on a GPU, the whole batch in one launch
"""

from collections.abc import Sequence

import numpy as np
import torch

from fastpets.kernels import reference
from fastpets.kernels.memory import PackedImages, converted, to_device

__all__ = ["BORDERS", "DTYPES", "MAX_BATCH", "PackedImages", "converted", "shrink", "shrink_batch", "to_device", "warp"]

BORDERS = tuple(reference.PADDING_MODES)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)
MAX_BATCH = 65_535  # CUDA's limit of the second and third dimensions of a grid, one of which is the batch


def warp(
    images: Sequence[torch.Tensor],
    source_from_output: torch.Tensor,
    samples: torch.Tensor,
    spread: torch.Tensor,
    luts: torch.Tensor,
    out: torch.Tensor,
    borders: str = "reflect",
) -> None:
    """Warps each image by its matrix, rounds to 8 bits (ties to even) and maps the result through lookup tables.

    `reference.warp` followed by `reference.look_up` is the specification. `images` and `out` are on one device, all
    other tensors on the CPU.

    Args:
        images: B images (H, W, 3) uint8, contiguous, each of its own size: separate tensors or `PackedImages`.
        source_from_output: (B, 3, 3) float32, homographies from output pixels to image pixels.
        samples: (B,) int32, at least 1. An output pixel is the mean of k x k bilinear samples, k being `samples`.
        spread: (B,) float32, the share of an output pixel's side over which its samples are spread, about its centre.
        luts: (B, 3, 256), one lookup table per image and channel, of out's dtype.
        out: (B, H, W, 3) float32, float16, bfloat16 or uint8, which is written.
        borders: "reflect", "border" or "zeros", the image's continuation beyond its edges.

    Raises ValueError for other shapes, types, devices and borders, and for more than MAX_BATCH images.
    """
    _check(images, source_from_output, samples, spread, luts, out, borders)
    if out.device.type == "cpu":
        from fastpets.kernels import warp_cpu

        warp_cpu.warp(images, source_from_output, samples, spread, luts, out, borders)
    else:
        from fastpets.kernels import warp_triton

        warp_triton.warp(images, source_from_output, samples, spread, luts, out, borders)


def shrink(image: torch.Tensor, by_height: int, by_width: int) -> torch.Tensor:
    """Shrinks an image (H, W, 3) uint8 to (H // by_height, W // by_width, 3): the rounded mean of each block of pixels.

    Rows and columns at the bottom and at the right that do not fill a block are dropped. Runs on the image's device.
    """
    if image.device.type == "cpu":
        from fastpets.kernels import shrink_cpu

        return shrink_cpu.shrink(image, by_height, by_width)
    return shrink_batch([image], np.array([[by_height, by_width]]))[0]


def shrink_batch(images: Sequence[torch.Tensor], factors: np.ndarray) -> Sequence[torch.Tensor]:
    """Shrinks images (H, W, 3) uint8, each by its own `factors` (B, 2) in height and width, as `shrink` does.

    The images are contiguous, on one device, and no smaller than their factors. On a GPU this is one launch, in the
    order of the current stream, and the result is `PackedImages`. Raises ValueError for other images and for more than
    MAX_BATCH.
    """
    _check_images(images)
    if len(images) == 0:
        return images
    if images[0].device.type == "cpu":
        return [shrink(image, *by) for image, by in zip(images, factors.tolist(), strict=True)]
    from fastpets.kernels import shrink_triton

    return shrink_triton.shrink(images, factors, images[0].device)


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
    pixels = [images.block] if isinstance(images, PackedImages) else images
    for i, tensor in enumerate(pixels):
        if tensor.device != out.device:
            raise ValueError(f"images[{i}]: on {tensor.device}, expected {out.device}, where out is")
    _check_images(images)
    expected = {
        "source_from_output": (source_from_output, torch.float32, (num_images, 3, 3)),
        "samples": (samples, torch.int32, (num_images,)),
        "spread": (spread, torch.float32, (num_images,)),
        "luts": (luts, out.dtype, (num_images, 3, 256)),
        "out": (out, out.dtype, (num_images, *out.shape[1:3], 3)),
    }
    for name, (tensor, dtype, shape) in expected.items():
        if tensor.dtype != dtype or tuple(tensor.shape) != shape or not tensor.is_contiguous():
            raise ValueError(f"{name}: {_description(tensor)}, expected contiguous {dtype} {shape}")
        if tensor is not out and tensor.device.type != "cpu":
            raise ValueError(f"{name}: on {tensor.device}, expected the CPU")
    if out.dtype not in DTYPES:
        raise ValueError(f"out: {out.dtype}, expected one of {', '.join(map(str, DTYPES))}")
    if borders not in BORDERS:
        raise ValueError(f"borders: {borders!r}, expected one of {', '.join(BORDERS)}")


def _check_images(images: Sequence[torch.Tensor]) -> None:
    if len(images) > MAX_BATCH:
        raise ValueError(f"images: {len(images)}, expected at most {MAX_BATCH}")
    if isinstance(images, PackedImages):
        return
    for i, image in enumerate(images):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.is_contiguous():
            raise ValueError(f"images[{i}]: {_description(image)}, expected contiguous uint8 (H, W, 3)")
        if 0 in image.shape or image.numel() >= 2**31:
            raise ValueError(f"images[{i}]: {_description(image)}, expected 1 to 2**31 - 1 elements")


def _description(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}{'' if tensor.is_contiguous() else ' not contiguous'}"

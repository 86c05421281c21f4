"""`shrink` on a GPU, in Triton: one launch for a whole batch of images, each of its own size and by its own factors."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
import triton
import triton.language as tl

from fastpets.kernels.memory import PackedImages, addresses_and_sizes, to_device

BLOCK = 512  # bytes of a row of output that a block computes at once
ROUND = tl.constexpr(1.5 * 2**23)  # added to a small float32, this rounds it to an integer, ties to even


def shrink(images: Sequence[torch.Tensor], factors: np.ndarray, device: torch.device) -> PackedImages:
    """Implements `kernels.shrink_batch`, in the order of the device's current stream, without waiting.

    Nothing is checked: a wrong shape reads foreign memory. The images must stay unchanged until the kernel has run. The
    pixels equal those of `shrink_cpu` bit for bit.
    """
    rows, out = pack_arguments(images, factors, device)
    height = int(out.sizes[:, 0].max())
    (rows,) = to_device([rows], device)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        # Fused, the product and ROUND would be rounded once, and some means half-way between two levels otherwise than
        # on a CPU.
        _shrink[(height, len(images))](
            rows,
            rows.view(torch.int32),
            rows.view(torch.float32),
            out.block,
            BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return out


def pack_arguments(
    images: Sequence[torch.Tensor], factors: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, PackedImages]:
    """Returns each image's arguments of the kernel as a row of 64 bytes, (B, 8) int64 on the CPU; and room for results.

    A row has, as int64, the image's address at 0 and the first byte of its result at 1; as int32, its width at 4,
    height and width of the result at 5 and 6, and its factors at 7 and 8; as float32, 1 / (product of both) at 9.
    """
    addresses, sizes = addresses_and_sizes(images)
    shrunk = sizes // factors
    ends = np.cumsum(3 * shrunk.astype(np.int64).prod(axis=1))
    starts = np.concatenate([[0], ends[:-1]])
    rows = np.zeros((len(images), 8), np.int64)
    rows[:, 0], rows[:, 1] = addresses, starts
    integers, floats = rows.view(np.int32), rows.view(np.float32)
    integers[:, 4], integers[:, 5:7], integers[:, 7:9] = sizes[:, 1], shrunk, factors
    floats[:, 9] = 1 / factors.prod(axis=1)
    block = torch.empty(int(ends[-1]), dtype=torch.uint8, device=device)
    return torch.from_numpy(rows), PackedImages(block, starts, shrunk)


@triton.jit
def _shrink(rows: tl.tensor, integers: tl.tensor, floats: tl.tensor, out: tl.tensor, BLOCK: tl.constexpr) -> None:
    """Computes a row of one image's result; each lane, single bytes of it, so that a warp reads and writes in order."""
    row, image = tl.program_id(0), tl.program_id(1)
    width = tl.load(integers + 16 * image + 4)
    shrunk_height = tl.load(integers + 16 * image + 5)
    shrunk_width = tl.load(integers + 16 * image + 6)
    by_height = tl.load(integers + 16 * image + 7)
    by_width = tl.load(integers + 16 * image + 8)
    share = tl.load(floats + 16 * image + 9)
    # The grid is as high as the highest image.
    num_bytes = tl.where(row < shrunk_height, 3 * shrunk_width, 0)
    block = tl.load(rows + 8 * image).to(tl.pointer_type(tl.uint8)) + 3 * row * by_height * width
    out += tl.load(rows + 8 * image + 1) + 3 * row * shrunk_width
    start = 0
    while start < num_bytes:
        byte = start + tl.arange(0, BLOCK)
        inside = byte < num_bytes
        first = byte // 3 * 3 * by_width + byte % 3
        total = tl.full((BLOCK,), 0, tl.int32)
        y = 0
        while y < by_height:
            x = 0
            while x < by_width:
                total += tl.load(block + (y * width + x) * 3 + first, mask=inside, other=0).to(tl.int32)
                x += 1
            y += 1
        mean = total.to(tl.float32) * share
        tl.store(out + byte, (mean + ROUND).to(tl.int32, bitcast=True).to(tl.uint8), mask=inside)
        start += BLOCK

"""`warp` on a GPU, in Triton: one launch for a whole batch of images, each of its own size."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
import triton
import triton.language as tl

from fastpets.kernels.memory import INTEGERS, addresses_and_sizes, to_device

# Side of a block's output tile in pixels. A warp of threads computes 16 x 2 pixels, for which a load touches 5.3 lines
# of 128 bytes of a photo of 500 x 375 px with training's transforms; it would be 5.6 for 32 x 1, 6.9 for 8 x 4 and 10.9
# for 4 x 8 (bench/warp_lines.py).
TILE = 16
# Added to a small float32, this rounds it to an integer, ties to even; the integer is in the low bits of the sum.
ROUND = tl.constexpr(1.5 * 2**23)


def warp(
    images: Sequence[torch.Tensor],
    source_from_output: torch.Tensor,
    samples: torch.Tensor,
    spread: torch.Tensor,
    luts: torch.Tensor,
    out: torch.Tensor,
    borders: str,
) -> None:
    """Implements `kernels.warp` on out's device, in the order of its current stream, without waiting.

    Arguments are those of `kernels.warp`, and luts and out may have any type of 1, 2 or 4 bytes. Nothing is checked: a
    wrong shape reads foreign memory. Output pixel (i, j) is, in each channel,

        lut[nearest 8-bit value of the mean over s, t < k of bilinear(image, M @ (i + at(s), j + at(t), 1))]

    where at(s) = 0.5 + spread * (s - (k - 1) / 2) / k and image pixel p covers [p, p + 1). The images must stay
    unchanged until the kernel has run. No matrix, not even of NaN, causes a read outside an image.

    Cost, derived and not measured: 256 images of 224 px write 77 MB in float16 (154 MB in float32) and read each source
    pixel of the visible region once, 39 MB at 1:1, 108 MB from 375 px, 154 MB at 1:2. In float16 that is 116, 185 and
    231 MB, which take 39, 62 and 77 us at 3 TB/s. Compiled for an H100, the kernel runs about 90 instructions per pixel
    and 100 more per sample (92 to 105 for other GPUs), and issuing these takes longer: 85 us for k = 1 and 220 us for
    k = 2 (132 SMs, 4 warps a cycle, 1.7 GHz).
    """
    rows = pack_arguments(images, source_from_output, samples, spread)
    rows, luts = to_device([rows, luts], out.device)
    launch(rows, luts, out, borders)


def launch(rows: torch.Tensor, luts: torch.Tensor, out: torch.Tensor, borders: str) -> None:
    """Launches the kernel on the images of `pack_arguments`; rows and luts are on out's device."""
    batch_size, height, width, _ = out.shape
    integer = INTEGERS[out.element_size()]
    grid = (triton.cdiv(width, TILE), triton.cdiv(height, TILE), batch_size)
    integers, floats, luts, values = (
        rows.view(torch.int32),
        rows.view(torch.float32),
        luts.view(integer),
        out.view(integer),
    )
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        _warp[grid](rows, integers, floats, luts, values, height, width, borders, TILE, num_warps=4)


def pack_arguments(
    images: Sequence[torch.Tensor], source_from_output: torch.Tensor, samples: torch.Tensor, spread: torch.Tensor
) -> torch.Tensor:
    """Returns each image's arguments of the kernel as a row of 64 bytes: (B, 8) int64, on the CPU.

    One tensor takes one copy to the device instead of four. A row has, as int64, the image's address at 0; as int32,
    its height, width and k at 2, 3 and 4; as float32, its matrix at 5-13 and its spread at 14.
    """
    addresses, sizes = addresses_and_sizes(images)
    rows = np.zeros((len(images), 8), np.int64)  # in NumPy: half of torch's time for such small arrays
    integers, floats = rows.view(np.int32), rows.view(np.float32)
    rows[:, 0] = addresses
    integers[:, 2:4], integers[:, 4] = sizes, samples.numpy()
    floats[:, 5:14], floats[:, 14] = source_from_output.numpy().reshape(-1, 9), spread.numpy()
    return torch.from_numpy(rows)


# Without do_not_specialize, Triton would compile again for sizes that are multiples of 16, and gain nothing.
@triton.jit(do_not_specialize=["height", "width"])
def _warp(
    rows: tl.tensor,
    integers: tl.tensor,
    floats: tl.tensor,
    luts: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    borders: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Computes a tile of one image's output, two pixels per lane.

    A lane computes all three channels of a pixel, which share taps and weights. One channel per lane would need one
    store instead of three, but 190 instructions per sample instead of 100. Lanes beyond the output's edge compute as
    well, from clamped points like all others; only their stores are masked.
    """
    image = tl.program_id(2)
    lane = tl.arange(0, TILE * TILE)  # one-dimensional: of two dimensions, Triton lays a warp down the 16 rows
    column = tl.program_id(0) * TILE + lane % TILE
    row = tl.program_id(1) * TILE + lane // TILE
    pixels = tl.load(rows + 8 * image).to(tl.pointer_type(tl.uint8))
    source_height = tl.load(integers + 16 * image + 2)
    source_width = tl.load(integers + 16 * image + 3)
    k = tl.load(integers + 16 * image + 4)
    matrix = floats + 16 * image + 5
    xu, xv, x1 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2)
    yu, yv, y1 = tl.load(matrix + 3), tl.load(matrix + 4), tl.load(matrix + 5)
    wu, wv, w1 = tl.load(matrix + 6), tl.load(matrix + 7), tl.load(matrix + 8)
    right = tl.where(source_width > 1, 3, 0)  # bytes to the next tap; 0, the same one, if there is none
    below = tl.where(source_height > 1, 3 * source_width, 0)
    red = tl.full((TILE * TILE,), 0.0, tl.float32)
    green = tl.full((TILE * TILE,), 0.0, tl.float32)
    blue = tl.full((TILE * TILE,), 0.0, tl.float32)
    part = 1.0 / k
    step = tl.load(floats + 16 * image + 14) * part
    first = 0.5 - 0.5 * step * (k - 1)
    t = 0
    while t < k:  # not range(k): Triton 3.6's interpreter fails on a loaded bound under NumPy 2.4
        v = row + (first + t * step)
        s = 0
        while s < k:
            u = column + (first + s * step)
            per_w = 1.0 / (wu * u + (wv * v + w1))
            x = (xu * u + (xv * v + x1)) * per_w
            y = (yu * u + (yv * v + y1)) * per_w
            left, past_x = _first_tap(x, source_width, borders)
            top, past_y = _first_tap(y, source_height, borders)
            cover = _coverage(x, source_width, borders) * _coverage(y, source_height, borders)
            tap = pixels + 3 * (top * source_width + left)
            red += cover * _bilinear(tap, right, below, past_x, past_y)
            green += cover * _bilinear(tap + 1, right, below, past_x, past_y)
            blue += cover * _bilinear(tap + 2, right, below, past_x, past_y)
            s += 1
        t += 1
    out += image.to(tl.int64) * height * width * 3 + 3 * (row * width + column)
    lut = luts + 768 * image
    inside = (row < height) & (column < width)
    _look_up(red * (part * part), lut, out, inside)
    _look_up(green * (part * part), lut + 256, out + 1, inside)
    _look_up(blue * (part * part), lut + 512, out + 2, inside)


@triton.jit
def _first_tap(x: tl.tensor, size: tl.tensor, borders: tl.constexpr) -> tl.tensor:
    """Returns, for one axis, the last pixel p whose centre is not after x, and the distance of x from it, 0-1.

    p and p + 1 are in the image (p alone if size is 1) for any x. On a GPU the float clamp maps NaN to a number, as the
    maximum of NaN and a number is the number; the integer clamp does not depend on that.
    """
    if borders == "reflect":  # the triangle wave of period 2 * size
        periods = x * (0.5 / size) + ROUND - ROUND
        x = tl.abs(x - 2.0 * size * periods)
    x = tl.minimum(tl.maximum(x - 0.5, 0.0), size - 1.0)
    pixel = tl.maximum(tl.minimum(x.to(tl.int32), size - 2), 0)
    return pixel, x - pixel.to(tl.float32)


@triton.jit
def _coverage(x: tl.tensor, size: tl.tensor, borders: tl.constexpr) -> tl.tensor:
    """Returns, for one axis, the weight, 0-1, of the image in a bilinear sample at x, where all beyond it is 0."""
    if borders == "zeros":
        return tl.minimum(tl.maximum(tl.minimum(x, size - x) + 0.5, 0.0), 1.0)
    else:
        return 1.0


@triton.jit
def _bilinear(tap: tl.tensor, right: tl.tensor, below: tl.tensor, past_x: tl.tensor, past_y: tl.tensor) -> tl.tensor:
    """Interpolates between the bytes at tap and its neighbours: 0-255."""
    upper = _linear(tap, right, past_x)
    return upper + past_y * (_linear(tap + below, right, past_x) - upper)


@triton.jit
def _linear(tap: tl.tensor, step: tl.tensor, past: tl.tensor) -> tl.tensor:
    """Interpolates between two bytes, each loaded by itself: taps are unaligned, and GPUs load aligned words only."""
    first = _byte(tap)
    return (first - 8388608.0) + past * (_byte(tap + step) - first)


@triton.jit
def _byte(tap: tl.tensor) -> tl.tensor:
    """Loads a byte as the float 2**23 + byte, by writing it into the float's low bits.

    A sample needs 12 bytes. Converting them takes as long as all else, as it runs on the special function unit.
    """
    return (tl.load(tap).to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit
def _look_up(value: tl.tensor, lut: tl.tensor, out: tl.tensor, inside: tl.tensor) -> None:
    """Stores the table's entry for the nearest integer; & 255 keeps any index within the table."""
    index = (value + ROUND).to(tl.int32, bitcast=True) & 255
    tl.store(out, tl.load(lut + index), mask=inside)

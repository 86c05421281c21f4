"""Warp and look-up on a GPU in one kernel: a whole batch of decoded images, each of its own size, in one launch."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import triton
import triton.language as tl

from fastpets.kernels.memory import moved, places

# The kernel moves the luts' bits and never computes with them, so float16 and bfloat16 are one kernel.
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
TILE = 16  # output pixels; warps of 16 x 2 lanes, as a rotated line of 32 meets more rows of the image
# Added to a small float32 it rounds that to an integer, ties to even, which the sum's low bits then spell.
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
    """Each image seen through its matrix, rounded to 8 bits and looked up in its luts, written into `out`.

    images: B of (H, W, 3) uint8, contiguous, on out's device, below 2**31 bytes each; source_from_output (B, 3, 3)
    float32, samples (B,) int32, k of at least 1, spread (B,) float32 and luts (B, 3, 256), each on the CPU or on that
    device; out (B, height, width, 3); luts and out contiguous and of one type of 1, 2 or 4 bytes; borders "reflect",
    "border" or "zeros". Checks none of this: a wrong shape reads foreign memory. Output pixel (i, j) is, in each
    channel,

        table[nearest 8-bit value of the mean over s, t < k of bilinear(image, M @ (i + at(s), j + at(t), 1))]

    where at(s) = 0.5 + spread * (s - (k - 1) / 2) / k and image pixel p covers [p, p + 1). It is written on out's
    device, in the order of the current stream; the images must stay as they are until then. Whatever the matrix, NaN
    included, nothing outside an image is read.

    What 256 images of 224 px must move: 77 MB written in float16 (154 in float32), and each pixel of the region seen
    once: 39 MB at 1:1, 108 MB from 375 px, 154 MB at 1:2. At 3 TB/s the sums, 116, 185 and 231 MB, take 39, 62 and
    77 us. Compiled for an H100 the kernel runs about 90 instructions a pixel and 100 more a sub-sample, so issuing them
    (132 SMs, 4 warps a cycle, 1.7 GHz) takes longer: 85 us for k = 1 and 220 us for k = 2. Derived, not measured.
    """
    rows = describe(images, source_from_output, samples, spread, out.device)
    launch(rows, moved(luts, out.device), out, borders)


def launch(rows: torch.Tensor, luts: torch.Tensor, out: torch.Tensor, borders: str) -> None:
    """The kernel alone, on images that `describe` has written down: all of it lies on out's device."""
    batch_size, height, width, _ = out.shape
    bits = BITS[out.element_size()]
    grid = (triton.cdiv(width, TILE), triton.cdiv(height, TILE), batch_size)
    integers, floats, luts, values = (
        rows.view(torch.int32),
        rows.view(torch.float32),
        luts.view(bits),
        out.view(bits),
    )
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        _warp[grid](rows, integers, floats, luts, values, height, width, borders, TILE, num_warps=4)


def describe(
    images: Sequence[torch.Tensor],
    source_from_output: torch.Tensor,
    samples: torch.Tensor,
    spread: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """A row of 64 bytes for each image, (B, 8) int64, on the device: one copy in place of four.

    As int64 its address is at 0; as int32 its height, width and k are at 2, 3 and 4; as float32 its matrix is at 5-13
    and its spread at 14.
    """
    addresses, sizes = map(torch.from_numpy, places(images))
    rows = torch.empty(len(images), 8, dtype=torch.int64)
    rows[:, 0] = addresses
    rows.view(torch.int32)[:, 2:4] = sizes
    _fill(rows, source_from_output, samples, spread)
    rows = moved(rows, device)
    _fill(rows, source_from_output, samples, spread)
    return rows


def _fill(rows: torch.Tensor, source_from_output: torch.Tensor, samples: torch.Tensor, spread: torch.Tensor) -> None:
    """Writes into the rows what lies on their own device."""
    if samples.device == rows.device:
        rows.view(torch.int32)[:, 4] = samples
    if spread.device == rows.device:
        rows.view(torch.float32)[:, 14] = spread
    if source_from_output.device == rows.device:
        rows.view(torch.float32)[:, 5:14] = source_from_output.flatten(1)


# No variants for sizes that are multiples of 16: they would compile anew for each kind of size and gain nothing.
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
    """A tile of one image's output, two pixels a lane.

    A lane computes whole pixels, since a point's taps and weights serve three channels: a lane for each value would
    write in one piece what now takes three stores, but run 190 instructions a sub-sample instead of 100. Lanes beyond
    the output's edge compute too, from points that are inside like all others, and only write nothing.
    """
    image = tl.program_id(2)
    lane = tl.arange(0, TILE * TILE)  # in one dimension: of two, Triton lays a warp along the other one, down 16 rows
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
    right = tl.where(source_width > 1, 3, 0)  # bytes to the second tap, which is the first again where there is none
    below = tl.where(source_height > 1, 3 * source_width, 0)
    red = tl.full((TILE * TILE,), 0.0, tl.float32)
    green = tl.full((TILE * TILE,), 0.0, tl.float32)
    blue = tl.full((TILE * TILE,), 0.0, tl.float32)
    part = 1.0 / k
    step = tl.load(floats + 16 * image + 14) * part
    first = 0.5 - 0.5 * step * (k - 1)
    t = 0
    while t < k:  # Triton 3.6 interprets no range of a loaded number under NumPy 2.4
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
    table = luts + 768 * image
    inside = (row < height) & (column < width)
    _look_up(red * (part * part), table, out, inside)
    _look_up(green * (part * part), table + 256, out + 1, inside)
    _look_up(blue * (part * part), table + 512, out + 2, inside)


@triton.jit
def _first_tap(x: tl.tensor, size: tl.tensor, borders: tl.constexpr) -> tl.tensor:
    """Along one axis: the pixel p whose centre is the last before x, and how far x is past that centre, 0-1.

    p and p + 1 lie in the image (p alone, where size is 1) for any x. On a GPU the float clamp turns even NaN into a
    number, as the maximum of NaN and a number is the number; the integer clamp holds without that.
    """
    if borders == "reflect":  # the triangle wave of period 2 * size
        periods = x * (0.5 / size) + ROUND - ROUND
        x = tl.abs(x - 2.0 * size * periods)
    x = tl.minimum(tl.maximum(x - 0.5, 0.0), size - 1.0)
    pixel = tl.maximum(tl.minimum(x.to(tl.int32), size - 2), 0)
    return pixel, x - pixel.to(tl.float32)


@triton.jit
def _coverage(x: tl.tensor, size: tl.tensor, borders: tl.constexpr) -> tl.tensor:
    """Along one axis: the share of a pixel centred at x that the image covers, the rest being zeros."""
    if borders == "zeros":
        return tl.minimum(tl.maximum(tl.minimum(x, size - x) + 0.5, 0.0), 1.0)
    else:
        return 1.0


@triton.jit
def _bilinear(tap: tl.tensor, right: tl.tensor, below: tl.tensor, past_x: tl.tensor, past_y: tl.tensor) -> tl.tensor:
    """The value between four bytes, 0-255."""
    upper = _linear(tap, right, past_x)
    return upper + past_y * (_linear(tap + below, right, past_x) - upper)


@triton.jit
def _linear(tap: tl.tensor, step: tl.tensor, past: tl.tensor) -> tl.tensor:
    """The value between two bytes. Bytes, as taps are aligned to nothing, and GPUs load words from multiples only."""
    first = _byte(tap)
    return (first - 8388608.0) + past * (_byte(tap + step) - first)


@triton.jit
def _byte(tap: tl.tensor) -> tl.tensor:
    """2**23 plus a byte, set into that float's bits.

    Converting would take as long as all the rest: 12 a sub-sample, on the unit of the special functions.
    """
    return (tl.load(tap).to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit
def _look_up(value: tl.tensor, table: tl.tensor, out: tl.tensor, inside: tl.tensor) -> None:
    """The table's entry for the nearest integer; the mask keeps whatever comes within the table."""
    index = (value + ROUND).to(tl.int32, bitcast=True) & 255
    tl.store(out, tl.load(table + index), mask=inside)

"""The warp on a GPU in Triton: a batch of decoded images, each of its own size, in one launch."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import triton
import triton.language as tl

from fastpets.kernels.memory import addresses_and_sizes, to_device

# The kernel copies bits from LUT to output, so that float16 and bfloat16 share one kernel.
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
TILE = 16  # output pixels per side. Warps cover 16 x 2 of them: a rotated line of 32 would touch more image rows.
# Added to a small float32, rounds it to an integer, ties to even, in the low bits of the sum.
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
    """`kernels.warp` for images on a GPU: enqueues the kernel on the current stream and returns.

    Arguments are those of `kernels.warp`, but unchecked (a wrong shape reads foreign memory), and those other than
    images and `out` may lie on the CPU or on out's device. Images must be below 2**31 bytes each and stay unchanged
    until the kernel has run. Nothing outside an image is read, whatever its matrix, NaN included.

    In each channel, output pixel (i, j) is

        lut[nearest 8-bit value of the mean over s, t < k of bilinear(image, M @ (i + at(s), j + at(t), 1))]

    where at(s) = 0.5 + spread * (s - (k - 1) / 2) / k and image pixel p covers [p, p + 1).

    Cost, derived and not measured: 256 images of 224 px write 77 MB in float16 (154 in float32) and read each pixel of
    the cropped region once: 39 MB at 1:1, 108 MB from 375 px, 154 MB at 1:2. At 3 TB/s the sums, 116, 185 and 231 MB,
    take 39, 62 and 77 us. Compiled for an H100 the kernel executes about 90 instructions per pixel and 100 per sample;
    issuing them (132 SMs, 4 warps a cycle, 1.7 GHz) takes longer: 85 us for k = 1 and 220 us for k = 2.
    """
    descriptors = make_descriptors(images, source_from_output, samples, spread, out.device)
    launch(descriptors, to_device(luts, out.device), out, borders)


def launch(descriptors: torch.Tensor, luts: torch.Tensor, out: torch.Tensor, borders: str) -> None:
    """Launches the kernel on images described by `make_descriptors`. All tensors lie on out's device."""
    batch_size, height, width, _ = out.shape
    bits = BITS[out.element_size()]
    grid = (triton.cdiv(width, TILE), triton.cdiv(height, TILE), batch_size)
    as_int32, as_float32 = descriptors.view(torch.int32), descriptors.view(torch.float32)
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        _warp[grid](
            descriptors,
            as_int32,
            as_float32,
            luts.view(bits),
            out.view(bits),
            height,
            width,
            borders,
            TILE,
            num_warps=4,
        )


def make_descriptors(
    images: Sequence[torch.Tensor],
    source_from_output: torch.Tensor,
    samples: torch.Tensor,
    spread: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """One descriptor of 64 bytes for each image, (B, 8) int64, on the device: one copy instead of four.

    Viewed as int64 it holds the image's address at 0; as int32 its height, width and k at 2, 3 and 4; as float32 its
    matrix at 5-13 and its spread at 14.
    """
    addresses, sizes = map(torch.from_numpy, addresses_and_sizes(images))
    descriptors = torch.empty(len(images), 8, dtype=torch.int64)
    descriptors[:, 0] = addresses
    descriptors.view(torch.int32)[:, 2:4] = sizes
    _fill(descriptors, source_from_output, samples, spread)
    descriptors = to_device(descriptors, device)
    _fill(descriptors, source_from_output, samples, spread)
    return descriptors


def _fill(
    descriptors: torch.Tensor, source_from_output: torch.Tensor, samples: torch.Tensor, spread: torch.Tensor
) -> None:
    """Writes those of the arguments into the descriptors that lie on the same device."""
    if samples.device == descriptors.device:
        descriptors.view(torch.int32)[:, 4] = samples
    if spread.device == descriptors.device:
        descriptors.view(torch.float32)[:, 14] = spread
    if source_from_output.device == descriptors.device:
        descriptors.view(torch.float32)[:, 5:14] = source_from_output.flatten(1)


# Without do_not_specialize, Triton compiles again for sizes that are multiples of 16, which gains nothing.
@triton.jit(do_not_specialize=["height", "width"])
def _warp(
    descriptors: tl.tensor,
    as_int32: tl.tensor,
    as_float32: tl.tensor,
    luts: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    borders: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Computes a tile of one image's output, two pixels per lane.

    A lane computes all three channels of a pixel, which share taps and weights: 100 instructions per sample. With one
    lane per channel, one coalesced store would replace three, but a sample would take 190 instructions. Lanes beyond
    the output's edge compute valid addresses as well; their stores are masked.
    """
    image = tl.program_id(2)
    lane = tl.arange(0, TILE * TILE)  # 1-D: in 2-D, Triton would lay a warp along a column, over 16 rows
    column = tl.program_id(0) * TILE + lane % TILE
    row = tl.program_id(1) * TILE + lane // TILE
    pixels = tl.load(descriptors + 8 * image).to(tl.pointer_type(tl.uint8))
    source_height = tl.load(as_int32 + 16 * image + 2)
    source_width = tl.load(as_int32 + 16 * image + 3)
    k = tl.load(as_int32 + 16 * image + 4)
    matrix = as_float32 + 16 * image + 5
    xu, xv, x1 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2)
    yu, yv, y1 = tl.load(matrix + 3), tl.load(matrix + 4), tl.load(matrix + 5)
    wu, wv, w1 = tl.load(matrix + 6), tl.load(matrix + 7), tl.load(matrix + 8)
    right = tl.where(source_width > 1, 3, 0)  # bytes to the second tap; 0 if the image has one column
    below = tl.where(source_height > 1, 3 * source_width, 0)
    red = tl.full((TILE * TILE,), 0.0, tl.float32)
    green = tl.full((TILE * TILE,), 0.0, tl.float32)
    blue = tl.full((TILE * TILE,), 0.0, tl.float32)
    part = 1.0 / k
    step = tl.load(as_float32 + 16 * image + 14) * part
    first = 0.5 - 0.5 * step * (k - 1)
    t = 0
    while t < k:  # a range() of a loaded number fails in Triton 3.6's interpreter with NumPy 2.4
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
    """Along one axis: the last pixel p whose centre is not beyond x, and the distance of x from that centre, 0-1.

    p and p + 1 lie in the image (only p if size is 1) for any x. On a GPU the float clamp turns NaN into a number, as
    the maximum of NaN and a number is the number; the integer clamp does not rely on this.
    """
    if borders == "reflect":  # the triangle wave of period 2 * size
        periods = x * (0.5 / size) + ROUND - ROUND
        x = tl.abs(x - 2.0 * size * periods)
    x = tl.minimum(tl.maximum(x - 0.5, 0.0), size - 1.0)
    pixel = tl.maximum(tl.minimum(x.to(tl.int32), size - 2), 0)
    return pixel, x - pixel.to(tl.float32)


@triton.jit
def _coverage(x: tl.tensor, size: tl.tensor, borders: tl.constexpr) -> tl.tensor:
    """Along one axis: the fraction of a pixel centred at x that the image covers, for borders of zeros."""
    if borders == "zeros":
        return tl.minimum(tl.maximum(tl.minimum(x, size - x) + 0.5, 0.0), 1.0)
    else:
        return 1.0


@triton.jit
def _bilinear(tap: tl.tensor, right: tl.tensor, below: tl.tensor, past_x: tl.tensor, past_y: tl.tensor) -> tl.tensor:
    """Interpolates between four bytes: 0-255."""
    upper = _linear(tap, right, past_x)
    return upper + past_y * (_linear(tap + below, right, past_x) - upper)


@triton.jit
def _linear(tap: tl.tensor, step: tl.tensor, past: tl.tensor) -> tl.tensor:
    """Interpolates between two bytes. Loads single bytes, as taps are unaligned and GPUs load only aligned words."""
    first = _byte(tap)
    return (first - 8388608.0) + past * (_byte(tap + step) - first)


@triton.jit
def _byte(tap: tl.tensor) -> tl.tensor:
    """Loads a byte and returns 2**23 + byte, by setting the low bits of that float.

    Converting the 12 bytes of a sample would take as long as all else: conversions run on the special function unit.
    """
    return (tl.load(tap).to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit
def _look_up(value: tl.tensor, lut: tl.tensor, out: tl.tensor, inside: tl.tensor) -> None:
    """Stores the LUT's entry for the nearest integer; `& 255` keeps any index within the LUT."""
    index = (value + ROUND).to(tl.int32, bitcast=True) & 255
    tl.store(out, tl.load(lut + index), mask=inside)

"""`warp` on a CPU, compiled by numba: sampling, averaging, rounding and table lookup in one pass over an image.

For an image of 224 px a thread takes 0.09 ms for each of the k x k samples, and 0.09 ms for lookups and for writing
float32 (EPYC, Zen 5, AVX-512). The loop over samples must vectorise for that. It does because it has no branches and
its loads cannot alias its stores: borders are computed by arithmetic, a pixel is loaded as one 32-bit word, and sums
are kept on the stack. Memory latency is hidden: each row prefetches the pixels of a later row.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastpets.kernels.memory import INTEGERS

COLUMNS = 256  # output pixels whose sums are kept on the stack before they are written
# While a row is computed, the samples of the row ROWS_AHEAD below are prefetched, for every COLUMNS_APART-th pixel.
# The hardware prefetcher fails on slanted rows: without this, an image that is not in the processor's cache takes
# 0.34 ms, with it 0.18 ms.
ROWS_AHEAD, COLUMNS_APART = 4, 8
# "numpy": IEEE division, without a check for zero. "contract": permits fused multiply-add.
COMPILED = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

f32, i32, u32 = np.float32, np.int32, np.uint32
ZERO, HALF, ONE, TWO = f32(0), f32(0.5), f32(1), f32(2)


def warp(
    images: Sequence[torch.Tensor],
    source_from_output: torch.Tensor,
    samples: torch.Tensor,
    spread: torch.Tensor,
    luts: torch.Tensor,
    out: torch.Tensor,
    borders: str,
) -> None:
    """Implements `kernels.warp` on the calling thread, without holding the GIL."""
    arguments = source_from_output.numpy(), samples.numpy(), spread.numpy(), as_integers(luts), as_integers(out)
    for image, matrix, k, sample_spread, lut, pixels in zip(images, *arguments, strict=True):
        warp_image(image.numpy(), matrix, k, sample_spread, lut, pixels, borders)


def warp_image(
    image: np.ndarray, matrix: np.ndarray, samples: int, spread: float, lut: np.ndarray, out: np.ndarray, borders: str
) -> None:
    """Warps one image (H, W, 3) uint8, as `warp` does; `lut` (3, 256) and `out` (H, W, 3) are of `as_integers`."""
    height, width = image.shape[:2]
    if height == 1 or width == 1:  # the kernel needs a right and a lower neighbour
        image = np.tile(image, (1 + (height == 1), 1 + (width == 1), 1))
    _kernel(borders)(image.reshape(-1), height, width, matrix, samples, spread, lut, out)


def as_integers(tensor: torch.Tensor) -> np.ndarray:
    """The same memory as integers of the same width."""
    return tensor.view(INTEGERS[tensor.element_size()]).numpy()


@intrinsic
def _load(typing_context: Any, values: Any, index: Any, offset: Any) -> Any:
    """Loads four bytes of a uint8 array, from index + offset on, as one int32; numba would emit four loads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(builder.gep(array.data, [arguments[2]]), [arguments[1]])
        word = builder.load(builder.bitcast(pointer, ir.IntType(32).as_pointer()))
        word.align = 1
        return word

    return types.int32(values, types.int32, types.int64), generate


@intrinsic
def _prefetch(typing_context: Any, values: Any, index: Any) -> Any:
    """Prefetches the cache line of an array's element `index`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer, word = builder.gep(array.data, [arguments[1]]), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], function_type)
        to_read, in_all_caches, of_data = word(0), word(3), word(1)
        builder.call(prefetch, [pointer, to_read, in_all_caches, of_data])
        return context.get_dummy_value()

    return types.none(values, types.int32), generate


@intrinsic
def _stack(typing_context: Any, dtype: Any) -> Any:
    """Returns COLUMNS numbers of `dtype` on the stack, which the compiler knows not to alias other memory."""
    number = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.get_value_type(number)
        memory = cgutils.alloca_once(builder, ir.ArrayType(value, COLUMNS))
        return builder.bitcast(memory, value.as_pointer())

    return types.CPointer(number)(dtype), generate  # type: ignore[attr-defined]


@numba.njit(forceinline=True, **COMPILED)
def _bilinear(p: Any, q: Any, s: Any, t: Any, shift: Any, x: Any, y: Any) -> Any:
    """Interpolates one channel between the pixels in the words p, q (upper left, right) and s, t (lower left, right).

    `shift` is the channel's first bit in p and s; the right pixels start one byte later in their words. x and y are
    the distances from the left and the upper pixels, 0-1.
    """
    upper_left, upper_right = f32(i32((p >> shift) & i32(255))), f32(i32((q >> i32(shift + i32(8))) & i32(255)))
    lower_left, lower_right = f32(i32((s >> shift) & i32(255))), f32(i32((t >> i32(shift + i32(8))) & i32(255)))
    upper = upper_left + x * (upper_right - upper_left)
    lower = lower_left + x * (lower_right - lower_left)
    return upper + y * (lower - upper)


@functools.cache
def _kernel(borders: str) -> Callable[..., None]:
    """Returns the kernel for one kind of borders; numba compiles it for each output width on first use (0.5 s)."""
    reflect, zeros = borders == "reflect", borders == "zeros"

    @numba.njit(forceinline=True, **COMPILED)
    def inside(x: Any, length: Any) -> Any:
        """Maps a coordinate into the range of pixel centres, 0.5 to length - 0.5, by reflection or clamping. NaN is
        mapped to 0.5, by the way in which the comparisons are written."""
        if reflect:
            x = abs(x - TWO * length * np.rint(x * (HALF / length)))  # the triangle wave of period 2 * length
        x = x if x > HALF else HALF
        return x if x < length - HALF else length - HALF

    @numba.njit(forceinline=True, **COMPILED)
    def coverage(x: Any, length: Any) -> Any:
        """The weight, 0-1, of the image in a bilinear sample at x, where all beyond the image is 0."""
        weight = min(min(x + HALF, length + HALF - x), ONE)
        return weight if weight > ZERO else ZERO

    @numba.njit(**COMPILED)
    def kernel(image: Any, height: int, width: int, matrix: Any, k: int, spread: Any, lut: Any, out: Any) -> None:
        red, green, blue = _stack(f32), _stack(f32), _stack(f32)
        r, g, b = _stack(u32), _stack(u32), _stack(u32)
        h, w, row_bytes = f32(height), f32(width), i32(3 * max(width, 2))
        last_x, last_y = f32(max(width, 2) - 2), f32(max(height, 2) - 2)
        step, first = spread / f32(k), HALF - spread * f32(k - 1) / f32(2 * k)
        m00, m01, m02 = matrix[0]
        m10, m11, m12 = matrix[1]
        m20, m21, m22 = matrix[2]
        for row in range(out.shape[0]):
            v = f32(row + ROWS_AHEAD)
            for column in range(0, out.shape[1], COLUMNS_APART):
                u = f32(column)
                scale = ONE / (m20 * u + m21 * v + m22)
                x = inside((m00 * u + m01 * v + m02) * scale, w)
                y = inside((m10 * u + m11 * v + m12) * scale, h)
                _prefetch(image, i32(i32(y) * row_bytes + i32(x) * i32(3)))
            for start in range(0, out.shape[1], COLUMNS):
                count = min(COLUMNS, out.shape[1] - start)
                for column in range(count):
                    red[column], green[column], blue[column] = ZERO, ZERO, ZERO
                for sample in range(k * k):
                    u = f32(start) + (first + f32(sample % k) * step)
                    v = f32(row) + (first + f32(sample // k) * step)
                    for column in range(count):
                        along = f32(i32(column)) + u
                        scale = ONE / (m20 * along + (m21 * v + m22))
                        x_free = (m00 * along + (m01 * v + m02)) * scale
                        y_free = (m10 * along + (m11 * v + m12)) * scale
                        x, y = inside(x_free, w) - HALF, inside(y_free, h) - HALF
                        left, upper = min(np.floor(x), last_x), min(np.floor(y), last_y)
                        x, y = x - left, y - upper
                        # A right pixel is loaded from one byte before it, so that no read passes the image's end.
                        i = i32(i32(upper) * row_bytes + i32(left) * i32(3))
                        p, q = _load(image, i, 0), _load(image, i, 2)
                        s, t = _load(image, i, row_bytes), _load(image, i, row_bytes + 2)
                        weight = ONE / f32(k * k)
                        if zeros:
                            weight = weight * coverage(x_free, w) * coverage(y_free, h)
                        red[column] += weight * _bilinear(p, q, s, t, i32(0), x, y)
                        green[column] += weight * _bilinear(p, q, s, t, i32(8), x, y)
                        blue[column] += weight * _bilinear(p, q, s, t, i32(16), x, y)
                for column in range(count):
                    r[column] = i32(np.rint(red[column]))
                    g[column] = i32(np.rint(green[column]))
                    b[column] = i32(np.rint(blue[column]))
                line = out[row, start : start + count]
                for column in range(count):
                    line[column, 0] = lut[0, r[column]]
                    line[column, 1] = lut[1, g[column]]
                    line[column, 2] = lut[2, b[column]]

    return kernel

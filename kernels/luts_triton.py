"""Lookup tables of tone adjustments on a GPU, in Triton: one launch for a whole batch of images.

Only the parameters of an image, 48 bytes, are copied to the GPU, not its table of 1,536 bytes in float16. The formulas
are those of `fastpets.augment.lookup_tables`, in float64 as there.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import triton
import triton.language as tl

WITHOUT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # a normalisation that is not used
# Added to a float64 below 2**51, and subtracted again, this rounds it to an integer, ties to even.
ROUND = tl.constexpr(1.5 * 2**52)


def luts(
    adjustments: torch.Tensor, normalization: tuple[Sequence[float], Sequence[float]] | None, dtype: torch.dtype
) -> torch.Tensor:
    """Lookup tables (B, 3, 256) of `dtype` for images with the parameters `adjustments` (B, 6) float64, on its device.

    Parameters are brightness, contrast, gamma, solarize, posterize, invert; `normalization` is mean and std of the
    three channels, or None for 0-255 in uint8. The launch is in the order of the current stream, without waiting.
    """
    out = torch.empty(len(adjustments), 3, 256, dtype=dtype, device=adjustments.device)
    launch(adjustments, normalization, out)
    return out


def launch(
    adjustments: torch.Tensor, normalization: tuple[Sequence[float], Sequence[float]] | None, out: torch.Tensor
) -> None:
    """Launches the kernel that writes the tables of `luts` into `out` (B, 3, 256)."""
    mean, std = normalization or WITHOUT
    is_uint8 = out.dtype == torch.uint8
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        # Fused, a product and a sum would be rounded once, and some values otherwise than on a CPU.
        _luts[(len(out),)](adjustments, out, *mean, *std, is_uint8, num_warps=4, enable_fp_fusion=False)


@triton.jit
def _luts(
    adjustments: tl.tensor,
    out: tl.tensor,
    mean_red: tl.tensor,
    mean_green: tl.tensor,
    mean_blue: tl.tensor,
    std_red: tl.tensor,
    std_green: tl.tensor,
    std_blue: tl.tensor,
    is_uint8: tl.constexpr,
) -> None:
    """Computes the three tables of an image, two of the 256 values per lane."""
    image = tl.program_id(0)
    parameters = adjustments + 6 * image
    brightness, contrast = tl.load(parameters), tl.load(parameters + 1)
    gamma, threshold = tl.load(parameters + 2), tl.load(parameters + 3)
    bits, inverted = tl.load(parameters + 4), tl.load(parameters + 5)
    value = tl.arange(0, 256)
    tone = value.to(tl.float64) / 255.0
    lit = 1.0 / (1.0 + tl.exp(-contrast * (_logit(tone) + _logit(brightness))))
    tone = tl.where((brightness != 0.5) | (contrast != 1.0), lit, tone)
    tone = tl.where(gamma != 1.0, tl.exp(gamma * tl.log(tone)), tone)
    tone = tl.where(tone >= threshold, 1.0 - tone, tone)
    step = (1 << bits.to(tl.int32)).to(tl.float64)
    tone = tl.where(bits != 0.0, tl.floor(_rounded(255.0 * tone) / step) * step / 255.0, tone)
    tone = tl.where(inverted != 0.0, 1.0 - tone, tone)
    out += 768 * image + value
    if is_uint8:
        step_of = _rounded(255.0 * tone).to(tl.int32).to(tl.uint8)
        tl.store(out, step_of)
        tl.store(out + 256, step_of)
        tl.store(out + 512, step_of)
    else:
        tone = tone.to(tl.float32)
        tl.store(out, tl.div_rn(tone - mean_red, std_red))
        tl.store(out + 256, tl.div_rn(tone - mean_green, std_green))
        tl.store(out + 512, tl.div_rn(tone - mean_blue, std_blue))


@triton.jit
def _logit(tone: tl.tensor) -> tl.tensor:
    """Log odds of a tone clamped to [1e-7, 1 - 1e-7]."""
    least = 1.0 / tl.full((1,), 1e7, tl.float64)  # Triton would take the number 1e-7 as a float32
    tone = tl.minimum(tl.maximum(tone, least), 1.0 - least)
    return tl.log(tone / (1.0 - tone))


@triton.jit
def _rounded(value: tl.tensor) -> tl.tensor:
    """The nearest integer, ties to even."""
    return value + ROUND - ROUND

"""Tone adjustments composed into one 256-entry lookup table per channel.

A lookup table (LUT) maps each 8-bit value to an output value. An adjustment maps LUTs to LUTs: (B, 256) float64 from
0 to 1, or (1, 256) if all images share one. Its parameter is (B,). Finally `normalize` or `to_uint8` converts the LUTs
to the output's type, (B, 3, 256).
"""

from collections.abc import Sequence

import numpy as np

IDENTITY = np.arange(256)[None] / 255  # (1, 256)


def brightness_and_contrast(luts: np.ndarray, brightness: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Adjusts in logit space, as fastai does: sigmoid(contrast * (logit(value) + logit(brightness))).

    Brightness lies between 0 and 1; 0.5 changes nothing. Contrast is a factor. The clamp of `logit` moves 0 and 1 by
    1e-7, as in fastai.
    """
    adjusted = np.multiply(-contrast[:, None], logit(luts) + logit(brightness)[:, None])
    np.exp(adjusted, out=adjusted)  # in place: allocating memory for a batch's LUTs takes longer than the arithmetic
    adjusted += 1
    return np.reciprocal(adjusted, out=adjusted)


def logit(value: np.ndarray) -> np.ndarray:
    """Log odds of values clamped to [1e-7, 1 - 1e-7], as in fastai."""
    value = np.clip(value, 1e-7, 1 - 1e-7)
    return np.log(value / (1 - value))


def gamma(luts: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Raises values to a power: an exponent below 1 brightens, one above 1 darkens."""
    return luts ** exponent[:, None] if (exponent != 1).any() else luts


def solarize(luts: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Inverts values from a threshold on; inf changes nothing."""
    if (threshold == np.inf).all():
        return luts
    return np.where(luts >= threshold[:, None], 1 - luts, luts)


def posterize(luts: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Rounds values to 8 bits and clears the lowest `bits` (0-7) of them; 0 leaves values as they are, unrounded."""
    if not bits.any():
        return luts
    step = 2 ** bits[:, None]
    return np.where(step > 1, np.floor(np.round(255 * luts) / step) * step / 255, luts)


def invert(luts: np.ndarray, inverted: np.ndarray) -> np.ndarray:
    """Inverts values of images for which `inverted` is true."""
    return np.where(inverted[:, None], 1 - luts, luts) if inverted.any() else luts


def normalize(luts: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(luts - mean) / std for each of three channels: (B, 3, 256) float32, computed in float32."""
    luts = luts.astype(np.float32)
    by_channel = np.empty((3, *luts.shape), np.float32)
    for channel, channel_mean, channel_std in zip(by_channel, mean, std, strict=True):
        np.subtract(luts, np.float32(channel_mean), out=channel)
        channel /= np.float32(channel_std)
    return by_channel.swapaxes(0, 1)


def to_uint8(luts: np.ndarray) -> np.ndarray:
    """Rounds values to 0-255, the same for three channels: (B, 3, 256) uint8."""
    return np.repeat(np.round(255 * luts).astype(np.uint8)[:, None, :], 3, axis=1)

"""Tone adjustments, composed into one 256-entry lookup table per channel.

Each function maps levels, (B, 256) in [0, 1], or (1, 256) if all images share them, to new levels. Its parameter has
one value per image, (B,).
"""

from collections.abc import Sequence

import numpy as np


def brightness_and_contrast(levels: np.ndarray, brightness: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Changes brightness and contrast as fastai does: sigmoid(contrast * (logit(level) + logit(brightness))).

    `brightness` is in (0, 1), 0.5 changes nothing; `contrast` is a factor. fastai's clamp of the logit moves 0 and 1 by
    1e-7, here as there.
    """
    odds = np.multiply(-contrast[:, None], logit(levels) + logit(brightness)[:, None])
    np.exp(odds, out=odds)  # in place: allocating a batch's levels takes longer than computing them
    odds += 1
    return np.reciprocal(odds, out=odds)


def logit(value: np.ndarray) -> np.ndarray:
    """Returns log(value / (1 - value)), with the value clamped to [1e-7, 1 - 1e-7] as in fastai."""
    value = np.clip(value, 1e-7, 1 - 1e-7)
    return np.log(value / (1 - value))


def gamma(levels: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Raises the levels to a power: an exponent below 1 brightens, above 1 darkens."""
    return levels ** exponent[:, None] if (exponent != 1).any() else levels


def solarize(levels: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Inverts the levels from a threshold on; infinity changes nothing."""
    if (threshold == np.inf).all():
        return levels
    return np.where(levels >= threshold[:, None], 1 - levels, levels)


def posterize(levels: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Clears the lowest `bits`, 0 to 7, of the 8-bit levels."""
    if not bits.any():
        return levels
    step = 2 ** bits[:, None]
    return np.where(step > 1, np.floor(np.round(255 * levels) / step) * step / 255, levels)


def invert(levels: np.ndarray, inverted: np.ndarray) -> np.ndarray:
    """Inverts the levels of the images for which `inverted` is true."""
    return np.where(inverted[:, None], 1 - levels, levels) if inverted.any() else levels


def normalized(levels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Returns the lookup tables (B, 3, 256) float32 of (level - mean) / std."""
    levels = levels.astype(np.float32)
    luts = np.empty((3, *levels.shape), np.float32)
    for lut, center, deviation in zip(luts, mean, std, strict=True):
        np.subtract(levels, np.float32(center), out=lut)
        lut /= np.float32(deviation)
    return luts.swapaxes(0, 1)


def quantized(levels: np.ndarray) -> np.ndarray:
    """Returns the lookup tables (B, 3, 256) uint8 of the levels rounded to 0-255, equal for all channels."""
    return np.repeat(np.round(255 * levels).astype(np.uint8)[:, None, :], 3, axis=1)

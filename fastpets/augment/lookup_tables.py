"""What becomes of a single value: each function takes values (B, 256) on a scale from 0 to 1, or (1, 256) that are all
samples', and an amount (B,) of its own for each sample, and gives values again. One after the other they make a
image's table.
"""

from collections.abc import Sequence

import numpy as np


def brightness_and_contrast(values: np.ndarray, brightness: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """fastai's: both act on a value's logit; brightness (0-1, neutral 0.5) adds its own, contrast multiplies.

    The clamp of the logit moves 0 and 1 by 1e-7, here as there.
    """
    odds = np.multiply(-contrast[:, None], logit(values) + logit(brightness)[:, None])
    np.exp(odds, out=odds)  # in place: new memory for a batch's values would take longer than what is done to them
    odds += 1
    return np.reciprocal(odds, out=odds)


def logit(value: np.ndarray) -> np.ndarray:
    """Log odds, of values kept 1e-7 away from 0 and 1 as in fastai."""
    value = np.clip(value, 1e-7, 1 - 1e-7)
    return np.log(value / (1 - value))


def gamma(values: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Raised to a power: below 1 brightens, above 1 darkens."""
    return values ** exponent[:, None] if (exponent != 1).any() else values


def solarize(values: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """The values from a threshold on turned into their negatives."""
    if (threshold == np.inf).all():
        return values
    return np.where(values >= threshold[:, None], 1 - values, values)


def posterize(values: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Without the lowest of their eight bits, `bits` (0-7) of them; as it is where that is none."""
    if not bits.any():
        return values
    step = 2 ** bits[:, None]
    return np.where(step > 1, np.floor(np.round(255 * values) / step) * step / 255, values)


def invert(values: np.ndarray, inverted: np.ndarray) -> np.ndarray:
    """The negative where `inverted` is true."""
    return np.where(inverted[:, None], 1 - values, values) if inverted.any() else values


def normalized(values: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """As each of the model's three channels wants them: luts (B, 3, 256) float32."""
    values = values.astype(np.float32)
    luts = np.empty((3, *values.shape), np.float32)
    for table, center, deviation in zip(luts, mean, std, strict=True):
        np.subtract(values, np.float32(center), out=table)
        table /= np.float32(deviation)
    return luts.swapaxes(0, 1)


def eight_bit(values: np.ndarray) -> np.ndarray:
    """Rounded to 0-255 and equal for all channels: luts (B, 3, 256) uint8."""
    return np.repeat(np.round(255 * values).astype(np.uint8)[:, None, :], 3, axis=1)

"""Tone adjustments of an image composed into one 256-entry lookup table per channel.

A lookup table (LUT) maps each 8-bit value to an output value. `tones` (256,) float64 are the values that the 8-bit
values have become so far, from 0 to 1. An adjustment changes them in place, in a loop of its own, which is faster than
one loop over all adjustments; its neutral parameter leaves them as they are. Finally `normalize` or `to_uint8` writes
the LUT (3, 256) in the output's type. On a GPU, `kernels.luts_triton` computes the same.
"""

import math

import numpy as np

from fastpets.augment.random_parameters import RandomParameters
from fastpets.utils.compiled import compilable, compiled

# The parameters of an image's adjustments, in the order in which they are made, and those that change nothing.
ADJUSTMENTS = RandomParameters._fields[-6:]
NEUTRAL = tuple(map(float, RandomParameters()[-6:]))


def luts(adjustments: np.ndarray, normalization: tuple[tuple[float, ...], tuple[float, ...]] | None) -> np.ndarray:
    """The LUTs (B, 3, 256) of images with the parameters `adjustments` (B, 6) float64, one column for each ADJUSTMENT.

    They are float32, normalised by mean and std of the three channels; or uint8, 0-255, without `normalization`.
    """
    found = np.empty((len(adjustments), 3, 256), np.uint8 if normalization is None else np.float32)
    _fill(found, adjustments, None if normalization is None else np.array(normalization, np.float32))
    return found


@compiled
def _fill(luts: np.ndarray, adjustments: np.ndarray, normalization: np.ndarray | None) -> None:
    """Computes the LUTs of a batch."""
    before = logits()
    for row in range(len(luts)):
        tones = adjusted_tones(adjustments[row], before)
        if normalization is None:
            to_uint8(luts[row], tones)
        else:
            normalize(luts[row], tones, normalization[0], normalization[1])


@compilable
def adjusted_tones(parameters: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The tones of all 8-bit values after all adjustments, (256,) float64; `logits` (256,) are those before."""
    tones = identity()
    brightness_and_contrast(tones, logits, parameters[0], parameters[1])
    gamma(tones, parameters[2])
    solarize(tones, parameters[3])
    posterize(tones, parameters[4])
    invert(tones, parameters[5])
    return tones


@compilable
def identity() -> np.ndarray:
    """The tones before any adjustment: (256,) float64."""
    tones = np.empty(256)
    for value in range(256):
        tones[value] = value / 255
    return tones


@compilable
def logit(tone: float) -> float:
    """Log odds of a tone clamped to [1e-7, 1 - 1e-7], as in fastai."""
    tone = min(max(tone, 1e-7), 1 - 1e-7)
    return math.log(tone / (1 - tone))


@compilable
def logits() -> np.ndarray:
    """The log odds of the tones before any adjustment: (256,) float64."""
    log_odds = identity()
    for value in range(256):
        log_odds[value] = logit(log_odds[value])
    return log_odds


@compilable
def brightness_and_contrast(tones: np.ndarray, logits: np.ndarray, brightness: float, contrast: float) -> None:
    """Adjusts in logit space, as fastai does: sigmoid(contrast * (logit(tone) + logit(brightness))).

    Brightness lies between 0 and 1; 0.5 changes nothing. Contrast is a factor; 1 changes nothing. `logits` (256,) are
    those of the tones before; they are the same for all images, and take as long as the rest. Their clamp moves 0 and 1
    by 1e-7, as in fastai.
    """
    if brightness != 0.5 or contrast != 1:
        brightness = logit(brightness)
        for value in range(256):
            tones[value] = 1 / (1 + math.exp(-contrast * (logits[value] + brightness)))


@compilable
def gamma(tones: np.ndarray, exponent: float) -> None:
    """Raises tones to a power: an exponent below 1 brightens, one above 1 darkens."""
    if exponent != 1:
        for value in range(256):
            tones[value] = tones[value] ** exponent


@compilable
def solarize(tones: np.ndarray, threshold: float) -> None:
    """Inverts tones from a threshold on; inf changes nothing."""
    if threshold != math.inf:
        for value in range(256):
            if tones[value] >= threshold:
                tones[value] = 1 - tones[value]


@compilable
def posterize(tones: np.ndarray, bits: float) -> None:
    """Rounds tones to 8 bits and clears the lowest `bits` (0-7) of them; 0 leaves tones as they are, unrounded."""
    if bits != 0:
        step = 2**bits
        for value in range(256):
            tones[value] = np.floor(np.rint(255 * tones[value]) / step) * step / 255


@compilable
def invert(tones: np.ndarray, inverted: float) -> None:
    """Inverts tones unless `inverted` is 0."""
    if inverted != 0:
        for value in range(256):
            tones[value] = 1 - tones[value]


@compilable
def normalize(lut: np.ndarray, tones: np.ndarray, mean: np.ndarray, std: np.ndarray) -> None:
    """Writes (tones - mean) / std, computed in float32; `lut` is (3, 256) float32, mean and std are (3,) float32."""
    for channel in range(3):
        for value in range(256):
            lut[channel, value] = (np.float32(tones[value]) - mean[channel]) / std[channel]


@compilable
def to_uint8(lut: np.ndarray, tones: np.ndarray) -> None:
    """Writes the tones rounded to 0-255, the same for three channels; `lut` is (3, 256) uint8."""
    for channel in range(3):
        for value in range(256):
            lut[channel, value] = np.uint8(np.rint(255 * tones[value]))

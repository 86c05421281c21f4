"""Tone adjustments equal fastai's and torchvision's, and neutral parameters change nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import Compose, Normalize, ToDtype
from torchvision.transforms.v2 import functional as torchvision

from fastpets.augment import lookup_tables
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "fastai_transforms.json").read_text())["lighting"]
IMAGE = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)  # every 8-bit value, as torchvision's image


IDENTITY = np.arange(256) / 255


def changed(adjust: Callable[..., None], parameter: float, tones: np.ndarray = IDENTITY) -> np.ndarray:
    """The tones (256,) after an adjustment."""
    tones = tones.copy()
    adjust(tones, parameter)
    return tones


def brightened(brightness: float, contrast: float) -> np.ndarray:
    """The tones (256,) after an adjustment of brightness and contrast."""
    tones = IDENTITY.copy()
    lookup_tables.brightness_and_contrast(tones, lookup_tables.logits(), brightness, contrast)
    return tones


def steps(tones: np.ndarray) -> list[int]:
    """Tones as rounded 8-bit values."""
    return np.rint(255 * tones).astype(int).tolist()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: "brightness {brightness}, contrast {contrast}".format(
    **golden["parameters"]))  # fmt: skip
def test_brightness_and_contrast_are_fastais(golden: dict) -> None:
    # The file has 12 decimals, half a unit of which is 5e-13; float64 rounds by some 1e-15 on either side. Neutral
    # parameters change nothing here, while the clamp of fastai's logit moves 0 and 1 by 1e-7.
    is_neutral = tuple(golden["parameters"].values()) == lookup_tables.NEUTRAL[:2]
    most = 1e-7 + 6e-13 if is_neutral else 6e-13
    assert brightened(**golden["parameters"]) == pytest.approx(np.ravel(golden["lut"]), abs=most, rel=0)


@pytest.mark.parametrize("exponent", [0.25, 0.7, 1.0, 1.3, 4.0])
def test_gamma_is_torchvisions(exponent: float) -> None:
    found = changed(lookup_tables.gamma, exponent)
    exact = torchvision.adjust_gamma(IMAGE.double() / 255, exponent)
    assert steps(found) == (255 * exact).round().flatten().tolist()
    # On 8-bit images torchvision truncates instead of rounding: each step is a 256th of the scale.
    truncated = np.floor(255.999 * found).astype(int).tolist()
    assert truncated == torchvision.adjust_gamma(IMAGE, exponent).flatten().tolist()


@pytest.mark.parametrize("threshold", [0, 1, 100, 128, 254, 255])
def test_solarize_is_torchvisions(threshold: int) -> None:
    found = changed(lookup_tables.solarize, threshold / 255)
    assert steps(found) == torchvision.solarize(IMAGE, threshold).flatten().tolist()


@pytest.mark.parametrize("dropped", range(8))
def test_posterize_is_torchvisions(dropped: int) -> None:
    expected = torchvision.posterize(IMAGE, 8 - dropped).flatten().tolist()
    for offset in (0, -0.4, 0.4):  # values between two steps are rounded first
        assert steps(changed(lookup_tables.posterize, dropped, IDENTITY + offset / 255)) == expected


def test_invert_is_torchvisions() -> None:
    assert steps(changed(lookup_tables.invert, True)) == torchvision.invert(IMAGE).flatten().tolist()


ADJUSTMENTS = [
    (lookup_tables.gamma, 1.0, 0.6),
    (lookup_tables.solarize, np.inf, 0.5),
    (lookup_tables.posterize, 0, 3),
    (lookup_tables.invert, False, True),
]


@pytest.mark.parametrize(("adjust", "neutral", "parameter"), ADJUSTMENTS)
def test_a_neutral_parameter_changes_nothing(adjust: Callable, neutral: float, parameter: float) -> None:
    between = IDENTITY * 0.97 + 0.01  # no multiples of 1 / 255
    assert (changed(adjust, neutral, between) == between).all()
    assert (changed(adjust, parameter, between) != between).any()


def test_neutral_brightness_and_contrast_change_nothing() -> None:
    assert (brightened(0.5, 1.0) == IDENTITY).all()
    assert (brightened(0.5, 1.1)[1:-1] != IDENTITY[1:-1]).all()
    assert (brightened(0.6, 1.0) != IDENTITY).all()


def test_luts_are_all_adjustments_in_their_order() -> None:
    parameters = {"brightness": 0.6, "contrast": 1.2, "gamma": 0.9, "solarize": 0.8, "posterize": 2.0, "invert": 1.0}
    tones = brightened(parameters["brightness"], parameters["contrast"])
    for name in lookup_tables.ADJUSTMENTS[2:]:
        tones = changed(getattr(lookup_tables, name), parameters[name], tones)
    found = lookup_tables.luts(np.array([lookup_tables.NEUTRAL, [*parameters.values()]]), None)
    assert (found[0] == np.arange(256)).all()
    assert (found[1] == np.rint(255 * tones)).all()


def test_normalized_luts_are_torchvisions_for_each_channel() -> None:
    normalize = Compose([ToDtype(torch.float32, scale=True), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    expected = normalize(IMAGE.expand(3, 16, 16)).flatten(1).numpy()
    luts = np.empty((2, 3, 256), np.float32)
    for lut, tones in zip(luts, (IDENTITY, 1 - IDENTITY), strict=True):
        lookup_tables.normalize(lut, tones, np.float32(IMAGENET_MEAN), np.float32(IMAGENET_STD))
    # torchvision rounds 1 / 255, the value, the mean and their difference to float32, by 2**-25 at most each; we round
    # all but the first. Both divide by a std of at least 0.224, itself rounded by 2**-24 relative, to quotients below
    # 4, rounded by 2**-23.
    most = 7 * 2**-25 / 0.224 + 2 * (4 * 2**-24 + 2**-23)
    assert abs(luts[0] - expected).max() <= most
    assert abs(luts[1] - expected[:, ::-1]).max() <= most


def test_uint8_luts_are_the_nearest_steps_in_every_channel() -> None:
    for tones in (np.linspace(0, 1, 256), np.linspace(1, 0, 256) ** 2):
        lut = np.empty((3, 256), np.uint8)
        lookup_tables.to_uint8(lut, tones)
        assert abs(lut - 255 * tones).max() <= 0.5 + 1e-12

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
from fastpets.augment.lookup_tables import IDENTITY
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "fastai_transforms.json").read_text())["lighting"]
IMAGE = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)  # every 8-bit value, as torchvision's image


def steps(changed: np.ndarray) -> list[int]:
    """The first image's LUT, 0-255, rounded."""
    return np.rint(255 * changed[0]).astype(int).tolist()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: "brightness {brightness}, contrast {contrast}".format(
    **golden["parameters"]))  # fmt: skip
def test_brightness_and_contrast_are_fastais(golden: dict) -> None:
    parameters = golden["parameters"]
    changed = lookup_tables.brightness_and_contrast(
        IDENTITY, *(np.array([parameters[name]]) for name in ("brightness", "contrast"))
    )
    # The file has 12 decimals, half a unit of which is 5e-13; float64 rounds by some 1e-15 on either side.
    assert changed[0] == pytest.approx(np.ravel(golden["lut"]), abs=6e-13, rel=0)


@pytest.mark.parametrize("exponent", [0.25, 0.7, 1.0, 1.3, 4.0])
def test_gamma_is_torchvisions(exponent: float) -> None:
    changed = lookup_tables.gamma(IDENTITY, np.array([exponent]))
    exact = torchvision.adjust_gamma(IMAGE.double() / 255, exponent)
    assert steps(changed) == (255 * exact).round().flatten().tolist()
    # On 8-bit images torchvision truncates instead of rounding: each step is a 256th of the scale.
    truncated = np.floor(255.999 * changed[0]).astype(int).tolist()
    assert truncated == torchvision.adjust_gamma(IMAGE, exponent).flatten().tolist()


@pytest.mark.parametrize("threshold", [0, 1, 100, 128, 254, 255])
def test_solarize_is_torchvisions(threshold: int) -> None:
    found = lookup_tables.solarize(IDENTITY, np.array([threshold / 255]))
    assert steps(found) == torchvision.solarize(IMAGE, threshold).flatten().tolist()


@pytest.mark.parametrize("dropped", range(8))
def test_posterize_is_torchvisions(dropped: int) -> None:
    expected = torchvision.posterize(IMAGE, 8 - dropped).flatten().tolist()
    for offset in (0, -0.4, 0.4):  # values between two steps are rounded first
        assert steps(lookup_tables.posterize(IDENTITY + offset / 255, np.array([dropped]))) == expected


def test_invert_is_torchvisions() -> None:
    assert steps(lookup_tables.invert(IDENTITY, np.array([True]))) == torchvision.invert(IMAGE).flatten().tolist()


ADJUSTMENTS = [
    (lookup_tables.gamma, 1.0, 0.6),
    (lookup_tables.solarize, np.inf, 0.5),
    (lookup_tables.posterize, 0, 3),
    (lookup_tables.invert, False, True),
]


@pytest.mark.parametrize(("adjust", "neutral", "parameter"), ADJUSTMENTS)
def test_a_neutral_parameter_changes_nothing_whatever_the_rest_of_the_batch(
    adjust: Callable, neutral: float, parameter: float
) -> None:
    between = IDENTITY * 0.97 + 0.01  # no multiples of 1 / 255
    both = adjust(np.concatenate([between, between]), np.array([neutral, parameter]))
    assert (both[0] == between).all()
    assert (both[1] == adjust(between, np.array([parameter]))[0]).all()
    assert (both[1] != between).any()


def test_neutral_brightness_and_contrast_change_values_by_no_more_than_the_logits_clamp() -> None:
    changed = lookup_tables.brightness_and_contrast(IDENTITY, np.array([0.5]), np.array([1.0]))
    assert abs(changed - IDENTITY).max() <= 1e-7 * (1 + 1e-6)
    assert changed[0, 1:-1] == pytest.approx(IDENTITY[0, 1:-1], rel=1e-14)


def test_normalized_luts_are_torchvisions_for_each_channel() -> None:
    normalize = Compose([ToDtype(torch.float32, scale=True), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    expected = normalize(IMAGE.expand(3, 16, 16)).flatten(1).numpy()
    luts = lookup_tables.normalize(np.concatenate([IDENTITY, 1 - IDENTITY]), IMAGENET_MEAN, IMAGENET_STD)
    assert luts.dtype == np.float32
    assert luts.shape == (2, 3, 256)
    # torchvision rounds 1 / 255, the value, the mean and their difference to float32, by 2**-25 at most each; we round
    # all but the first. Both divide by a std of at least 0.224, itself rounded by 2**-24 relative, to quotients below
    # 4, rounded by 2**-23.
    most = 7 * 2**-25 / 0.224 + 2 * (4 * 2**-24 + 2**-23)
    assert abs(luts[0] - expected).max() <= most
    assert abs(luts[1] - expected[:, ::-1]).max() <= most


def test_uint8_luts_are_the_nearest_steps_in_every_channel() -> None:
    between = np.array([np.linspace(0, 1, 256), np.linspace(1, 0, 256) ** 2])
    luts = lookup_tables.to_uint8(between)
    assert luts.dtype == np.uint8
    assert luts.shape == (2, 3, 256)
    assert (luts[0] == np.arange(256)).all()
    assert abs(luts - 255 * between[:, None]).max() <= 0.5 + 1e-12

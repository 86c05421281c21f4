"""The values: fastai's own lighting, torchvision's other changes, and that neutral amounts change nothing."""

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
ALL = np.arange(256)[None] / 255  # every 8-bit value, of one sample
IMAGE = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)  # the same as an image of torchvision's


def steps(changed: np.ndarray) -> list[int]:
    """Values of one sample on a scale from 0 to 255, rounded."""
    return np.rint(255 * changed[0]).astype(int).tolist()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: "brightness {brightness}, contrast {contrast}".format(
    **golden["draws"]))  # fmt: skip
def test_a_value_becomes_what_fastais_own_code_makes_of_it(golden: dict) -> None:
    amounts = golden["draws"]
    changed = lookup_tables.brightness_and_contrast(
        ALL, *(np.array([amounts[name]]) for name in ("brightness", "contrast"))
    )
    # The file has 12 decimals, half a unit of which is 5e-13; float64's own rounding is some 1e-15 on either side.
    assert changed[0] == pytest.approx(np.ravel(golden["values"]), abs=6e-13, rel=0)


@pytest.mark.parametrize("exponent", [0.25, 0.7, 1.0, 1.3, 4.0])
def test_gamma_is_torchvisions(exponent: float) -> None:
    changed = lookup_tables.gamma(ALL, np.array([exponent]))
    exact = torchvision.adjust_gamma(IMAGE.double() / 255, exponent)
    assert steps(changed) == (255 * exact).round().flatten().tolist()
    # On 8 bits torchvision cuts off what we round: each 256th of the scale is one step.
    cut_off = np.floor(255.999 * changed[0]).astype(int).tolist()
    assert cut_off == torchvision.adjust_gamma(IMAGE, exponent).flatten().tolist()


@pytest.mark.parametrize("threshold", [0, 1, 100, 128, 254, 255])
def test_solarize_is_torchvisions(threshold: int) -> None:
    found = lookup_tables.solarize(ALL, np.array([threshold / 255]))
    assert steps(found) == torchvision.solarize(IMAGE, threshold).flatten().tolist()


@pytest.mark.parametrize("dropped", range(8))
def test_posterize_is_torchvisions(dropped: int) -> None:
    expected = torchvision.posterize(IMAGE, 8 - dropped).flatten().tolist()
    for beside in (0, -0.4, 0.4):  # what lies between two steps counts as the nearer one
        assert steps(lookup_tables.posterize(ALL + beside / 255, np.array([dropped]))) == expected


def test_invert_is_torchvisions() -> None:
    assert steps(lookup_tables.invert(ALL, np.array([True]))) == torchvision.invert(IMAGE).flatten().tolist()


CHANGES = [
    (lookup_tables.gamma, 1.0, 0.6),
    (lookup_tables.solarize, np.inf, 0.5),
    (lookup_tables.posterize, 0, 3),
    (lookup_tables.invert, False, True),
]


@pytest.mark.parametrize(("change", "neutral", "amount"), CHANGES)
def test_a_neutral_amount_leaves_values_alone_whatever_the_rest_of_the_batch(
    change: Callable, neutral: float, amount: float
) -> None:
    between = ALL * 0.97 + 0.01  # not on 8 bits' steps
    both = change(np.concatenate([between, between]), np.array([neutral, amount]))
    assert (both[0] == between).all()
    assert (both[1] == change(between, np.array([amount]))[0]).all()
    assert (both[1] != between).any()


def test_neutral_brightness_and_contrast_move_values_by_no_more_than_the_logits_clamp() -> None:
    changed = lookup_tables.brightness_and_contrast(ALL, np.array([0.5]), np.array([1.0]))
    assert abs(changed - ALL).max() <= 1e-7 * (1 + 1e-6)
    assert changed[0, 1:-1] == pytest.approx(ALL[0, 1:-1], rel=1e-14)


def test_normalized_values_are_torchvisions_for_each_channel() -> None:
    normalize = Compose([ToDtype(torch.float32, scale=True), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    expected = normalize(IMAGE.expand(3, 16, 16)).flatten(1).numpy()
    luts = lookup_tables.normalized(np.concatenate([ALL, 1 - ALL]), IMAGENET_MEAN, IMAGENET_STD)
    assert luts.dtype == np.float32
    assert luts.shape == (2, 3, 256)
    # torchvision rounds 1 / 255, the value, the mean and their difference to float32, 2**-25 at most each, and we all
    # but the first; both divide by a std of at least 0.224, itself rounded by 2**-24 relative, to quotients below 4,
    # rounded by 2**-23.
    most = 7 * 2**-25 / 0.224 + 2 * (4 * 2**-24 + 2**-23)
    assert abs(luts[0] - expected).max() <= most
    assert abs(luts[1] - expected[:, ::-1]).max() <= most


def test_eight_bit_tables_are_the_nearest_steps_in_every_channel() -> None:
    between = np.array([np.linspace(0, 1, 256), np.linspace(1, 0, 256) ** 2])
    luts = lookup_tables.quantized(between)
    assert luts.dtype == np.uint8
    assert luts.shape == (2, 3, 256)
    assert (luts[0] == np.arange(256)).all()
    assert abs(luts - 255 * between[:, None]).max() <= 0.5 + 1e-12

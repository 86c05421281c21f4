"""Distributions of random parameters: how often operations are applied, and over which ranges."""

import numpy as np
import pytest

from fastpets.augment import geometry
from fastpets.augment.policy import POLICIES, Augment
from fastpets.augment.random_parameters import NEUTRAL, UNIFORMS, RandomParameters, draw_parameters
from fastpets.utils import philox

COUNT = 100_000
TRIVIAL = POLICIES["trivial-geometric"]
EVERYTHING = Augment(max_shear=20, max_translate=0.3, max_gamma=1, max_solarize=0.5, max_posterize=3, p_invert=0.25)
# The range of each uniform parameter under EVERYTHING, and of those whose logarithm is uniform.
RANGES = {
    **{"rotate": (-10, 10), "zoom": (1, 1.1), "warp_x": (-0.2, 0.2), "warp_y": (-0.2, 0.2)},
    **{"shear_x": (-20, 20), "shear_y": (-20, 20), "translate_x": (-0.3, 0.3), "translate_y": (-0.3, 0.3)},
    **{"brightness": (0.4, 0.6), "solarize": (0.5, 1)},
}
LOG_RANGES = {"contrast": (0.8, 1 / 0.8), "gamma": (0.5, 2)}


def drawn(augment: Augment) -> RandomParameters:
    return draw_parameters(np.arange(COUNT), augment, seed=5, epoch=2)


@pytest.fixture(scope="module")
def parameters() -> RandomParameters:
    return drawn(EVERYTHING)


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Within the range, close to both ends, and with a uniform distribution's mean and variance, to 5 deviations."""
    assert low <= values.min() < low + (high - low) / 1000
    assert high - (high - low) / 1000 < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * len(values))
    # The variance of (high - low)^2 / 12 has a deviation of (high - low)^2 / sqrt(180 n).
    assert abs(values.var() - (high - low) ** 2 / 12) < 5 * (high - low) ** 2 / np.sqrt(180 * len(values))


def assert_frequency(applied: np.ndarray, p: float) -> None:
    assert abs(applied.mean() - p) <= 5 * np.sqrt(p * (1 - p) / len(applied))


@pytest.mark.parametrize("name", [*RANGES, *LOG_RANGES])
def test_each_operation_is_applied_as_often_as_the_policy_says_and_uniform_over_its_range(
    parameters: RandomParameters, name: str
) -> None:
    values = getattr(parameters, name)
    applied = values != getattr(NEUTRAL, name)
    assert_frequency(applied, 0.75)
    if name in RANGES:
        assert_uniform(values[applied], *RANGES[name])
    else:
        assert_uniform(np.log(values[applied]), *np.log(LOG_RANGES[name]))


def test_flips_inversions_bits_positions_and_crops_have_the_policys_distributions(parameters: RandomParameters) -> None:
    assert_frequency(parameters.flip, 0.5)
    assert_frequency(parameters.invert, 0.25)
    for bits in (1, 2, 3):  # a fourth of the images to which it is applied drop none
        assert_frequency(parameters.posterize == bits, 0.75 / 4)
    assert_uniform(parameters.crop_scale, 0.75, 1)
    for name in ("presize_x", "presize_y", "zoom_x", "zoom_y", "crop_x", "crop_y"):
        assert_uniform(getattr(parameters, name), 0, 1)


def test_uniform_numbers_are_uncorrelated() -> None:
    numbers = philox.uniforms(philox.AUGMENT, 5, 2, np.arange(COUNT), 0, len(UNIFORMS))
    correlations = np.corrcoef(numbers.T) - np.eye(len(UNIFORMS))
    assert abs(correlations).max() < 6 / np.sqrt(COUNT)


def test_a_crop_has_its_area_and_lies_on_the_canvas(parameters: RandomParameters) -> None:
    crops = geometry.crop(parameters.crop_scale, parameters.crop_x, parameters.crop_y)
    assert np.linalg.det(crops) == pytest.approx(parameters.crop_scale)
    corners = np.stack([crops @ [s, t, 1.0] for s in (-1, 1) for t in (-1, 1)])
    assert abs(corners[..., :2]).max() <= 1 + 1e-12


def test_trivial_geometric_applies_one_operation_to_an_image_or_none_all_equally_often() -> None:
    parameters = drawn(TRIVIAL)
    expected = ("rotate", "brightness", "solarize", "posterize", "shear_x", "shear_y", "translate_x", "translate_y")
    assert set(TRIVIAL.ops) == set(expected)
    random_always = {"presize_x", "presize_y", "zoom_x", "zoom_y", "crop_x", "crop_y", "crop_scale", "flip"}
    names = [name for name in RandomParameters._fields if name not in random_always]
    applied = {name: np.broadcast_to(getattr(parameters, name) != getattr(NEUTRAL, name), COUNT) for name in names}
    assert (sum(mask.astype(int) for mask in applied.values()) <= 1).all()
    for name, mask in applied.items():
        # With posterize, a seventh of the images drop no bits.
        frequency = 1 / 9 * (6 / 7 if name == "posterize" else 1) if name in expected else 0
        assert_frequency(mask, frequency)


def test_mult_scales_rotation_warp_shear_translation_lighting_and_gamma() -> None:
    maxima = {"max_rotate": 20, "max_warp": 0.1, "max_shear": 5, "max_translate": 0.1, "max_brightness": 0.2,
              "max_contrast": 0.2, "max_gamma": 0.5}  # fmt: skip
    scaled = drawn(Augment(**maxima, mult=2))
    doubled = drawn(Augment(**{name: 2 * most for name, most in maxima.items()}))
    assert all(np.array_equal(a, b) for a, b in zip(scaled, doubled, strict=True))


def test_an_operation_more_does_not_change_the_others(parameters: RandomParameters) -> None:
    default = drawn(Augment())
    for name in ("presize_x", "flip", "rotate", "zoom", "warp_x", "warp_y", "crop_scale", "brightness", "contrast"):
        assert np.array_equal(getattr(default, name), getattr(parameters, name))


def test_images_occurrences_epochs_and_seeds_have_parameters_of_their_own() -> None:
    ids, occurrences = np.array([7, 7, 8]), np.array([0, 1, 0])
    found = draw_parameters(ids, Augment(), seed=0, epoch=0, occurrences=occurrences).crop_x
    later = draw_parameters(ids[:1], Augment(), seed=0, epoch=1).crop_x
    other = draw_parameters(ids[:1], Augment(), seed=1, epoch=0).crop_x
    assert len({*found.tolist(), *later.tolist(), *other.tolist()}) == 5
    again = draw_parameters(ids[:1], Augment(), seed=0, epoch=0).crop_x
    assert again[0] == found[0]

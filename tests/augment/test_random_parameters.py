"""Distributions of random parameters: how often operations are applied, and over which ranges."""

import numpy as np
import pytest

from fastpets.augment import geometry
from fastpets.augment.policy import POLICIES, Augment
from fastpets.augment.random_parameters import Policy, RandomParameters, Uniform, draw_parameters, drawn, in_numbers
from fastpets.utils import philox
from fastpets.utils.compiled import compiled

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


STREAM = philox.stream(philox.AUGMENT, seed=5, epoch=2)
NEUTRAL = RandomParameters()


@compiled
def draw(i: int, policy: Policy) -> RandomParameters:
    return drawn(STREAM, i, 0, policy)


@compiled
def draw_uniforms(numbers: np.ndarray) -> None:
    for i in range(len(numbers)):
        numbers[i] = philox.uniforms(STREAM, i, 0, numbers.shape[1])


def draw_many(augment: Augment) -> RandomParameters:
    """The parameters of images 0, 1, 2, ...: each (COUNT,)."""
    policy = in_numbers(augment)
    return RandomParameters(*map(np.array, zip(*(draw(i, policy) for i in range(COUNT)), strict=True)))


@pytest.fixture(scope="module")
def parameters() -> RandomParameters:
    return draw_many(EVERYTHING)


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
    numbers = np.empty((COUNT, len(Uniform)))
    draw_uniforms(numbers)
    correlations = np.corrcoef(numbers.T) - np.eye(len(Uniform))
    assert abs(correlations).max() < 6 / np.sqrt(COUNT)


def test_a_crop_has_its_area_and_lies_on_the_canvas(parameters: RandomParameters) -> None:
    places = zip(parameters.crop_scale[:1000], parameters.crop_x, parameters.crop_y, strict=False)
    crops = np.array([geometry.crop(*place) for place in places])
    assert np.linalg.det(crops) == pytest.approx(parameters.crop_scale[:1000])
    corners = np.stack([crops @ [s, t, 1.0] for s in (-1, 1) for t in (-1, 1)])
    assert abs(corners[..., :2]).max() <= 1 + 1e-12


def test_trivial_geometric_applies_one_operation_to_an_image_or_none_all_equally_often() -> None:
    parameters = draw_many(TRIVIAL)
    expected = ("rotate", "brightness", "solarize", "posterize", "shear_x", "shear_y", "translate_x", "translate_y")
    assert set(TRIVIAL.ops) == set(expected)
    random_always = {"presize_x", "presize_y", "zoom_x", "zoom_y", "crop_x", "crop_y", "crop_scale", "flip"}
    names = [name for name in RandomParameters._fields if name not in random_always]
    applied = {name: getattr(parameters, name) != getattr(NEUTRAL, name) for name in names}
    assert (sum(mask.astype(int) for mask in applied.values()) <= 1).all()
    for name, mask in applied.items():
        # With posterize, a seventh of the images drop no bits.
        frequency = 1 / 9 * (6 / 7 if name == "posterize" else 1) if name in expected else 0
        assert_frequency(mask, frequency)


def test_mult_scales_rotation_warp_shear_translation_lighting_and_gamma() -> None:
    maxima = {"max_rotate": 20, "max_warp": 0.1, "max_shear": 5, "max_translate": 0.1, "max_brightness": 0.2,
              "max_contrast": 0.2, "max_gamma": 0.5}  # fmt: skip
    scaled = draw_many(Augment(**maxima, mult=2))
    doubled = draw_many(Augment(**{name: 2 * most for name, most in maxima.items()}))
    assert all(np.array_equal(a, b) for a, b in zip(scaled, doubled, strict=True))


def test_an_operation_more_does_not_change_the_others(parameters: RandomParameters) -> None:
    default = draw_many(Augment())
    for name in ("presize_x", "flip", "rotate", "zoom", "warp_x", "warp_y", "crop_scale", "brightness", "contrast"):
        assert np.array_equal(getattr(default, name), getattr(parameters, name))


def test_images_occurrences_epochs_and_seeds_have_parameters_of_their_own() -> None:
    def crop_x(i: int = 7, occurrence: int = 0, **key: int) -> float:
        return draw_parameters(i, Augment(), **{"seed": 0, "epoch": 0, **key}, occurrence=occurrence).crop_x

    found = [crop_x(), crop_x(occurrence=1), crop_x(8), crop_x(epoch=1), crop_x(seed=1)]
    assert len(set(found)) == 5
    assert crop_x() == found[0]


def test_a_policy_in_numbers_has_each_operation_at_the_place_of_its_number() -> None:
    assert set(EVERYTHING.ops) == {u.name.removeprefix("apply_") for u in Uniform if u.name.startswith("apply_")}
    for name in EVERYTHING.ops:
        assert Uniform[name] == Uniform[f"apply_{name}"] + 1
        assert name in RandomParameters._fields
    default = in_numbers(Augment())
    assert {Uniform(at).name for at in np.flatnonzero(default.probabilities)} == set(Augment().ops)


def test_a_numbers_position_in_the_stream_fixes_its_value() -> None:
    parameters = draw_parameters(3, EVERYTHING, seed=1, epoch=2)
    u = philox.uniforms(philox.stream(philox.AUGMENT, 1, 2), 3, 0, 36)
    assert (parameters.presize_x, parameters.presize_y, parameters.crop_y) == (u[0], u[1], u[15])
    assert (parameters.flip, parameters.invert) == (u[2] < 0.5, u[34] < 0.25)
    assert parameters.rotate == (0 if u[3] >= 0.75 else (2 * u[4] - 1) * 10)
    assert parameters.posterize == (0 if u[32] >= 0.75 else u[33] * 4 // 1)

"""Random parameters, policies, and the matrix and lookup tables that each image's parameters compose to."""

from typing import Any

import numpy as np
import pytest
import torch

from fastpets.augment import transforms
from fastpets.augment.policy import POLICIES, Augment
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from fastpets.errors import FastpetsError
from fastpets.utils import philox

PLAIN = {"mean": (0,) * 3, "std": (1,) * 3}
COUNT = 100_000
TRIVIAL = POLICIES["trivial-geometric"]


def composed(ids: np.ndarray, heights: np.ndarray, widths: np.ndarray, augment: Augment | None = None, **seen: Any
             ) -> transforms.Transforms:  # fmt: skip
    return transforms.transforms(ids, heights, widths, Preprocessing(**seen), augment=augment)


def moved(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    """Where a homography takes a point."""
    point = matrix @ [x, y, 1]
    return point[:2] / point[2]


@pytest.fixture(scope="module")
def uniforms() -> transforms.Uniforms:
    numbers = philox.uniforms(philox.AUGMENT, 5, 2, np.arange(COUNT), 0, len(transforms.STREAM))
    return dict(zip(transforms.STREAM, numbers.T, strict=True))


def test_validation_sees_the_centre_square_and_nothing_else() -> None:
    heights, widths = np.array([100, 300]), np.array([140, 200])
    todo = composed(np.array([0, 1]), heights, widths, size=(25, 25), **PLAIN)
    for matrix, (left, top, side) in zip(todo.source_from_output, [(20, 0, 100), (0, 50, 200)], strict=True):
        # 300 x 200 is halved: its shorter side exceeds four times the output's 25.
        scale = 100 / side
        assert moved(matrix, 0, 0) == pytest.approx([left * scale, top * scale])
        assert moved(matrix, 25, 25) == pytest.approx([(left + side) * scale, (top + side) * scale])
    assert todo.shrink.tolist() == [[1, 1], [2, 2]]
    assert todo.samples.tolist() == [2, 2]


def test_validation_lookup_tables_normalise_and_do_nothing_else() -> None:
    todo = composed(np.arange(2), *np.full((2, 2), 9), size=(9, 9))
    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    from torchvision.transforms.v2 import Compose, Normalize, ToDtype

    expected = Compose([ToDtype(torch.float32, scale=True), Normalize(IMAGENET_MEAN, IMAGENET_STD)])(values)[:, 0]
    # As derived in test_lookup_tables.py.
    assert np.abs(todo.luts - expected.numpy()).max() <= 7 * 2**-25 / 0.224 + 2 * (4 * 2**-24 + 2**-23)


def test_lookup_tables_for_uint8_are_the_8_bit_values() -> None:
    todo = composed(np.arange(2), *np.full((2, 2), 9), size=(9, 9), output="uint8")
    assert todo.luts.dtype == np.uint8
    assert (todo.luts == np.arange(256)).all()


def test_a_shrunk_images_matrix_shows_the_same_region() -> None:
    given = {"size": (100, 100), "augment": Augment(), **PLAIN}
    ids, height, width = np.array([0]), np.array([1000]), np.array([1503])
    whole, shrunk = (composed(ids, height, width, presize=side, **given) for side in (5000, 150))
    assert whole.shrink.tolist() == [[1, 1]]
    assert shrunk.shrink.tolist() == [[7, 7]]  # 1000 / 150, rounded up
    for x, y in [(0, 0), (100, 0), (37, 81)]:
        point = moved(whole.source_from_output[0], x, y) / 7
        assert moved(shrunk.source_from_output[0], x, y) == pytest.approx(point, abs=1e-3)


def test_with_no_change_training_is_a_random_square_of_the_image() -> None:
    still = Augment(p_flip=0, p_affine=0, p_lighting=0, min_scale=1)
    todo = composed(np.arange(50), np.full(50, 80), np.full(50, 60), size=(60, 60), augment=still, **PLAIN)
    matrix = todo.source_from_output
    assert np.allclose(matrix[:, 0], [1, 0, 0], atol=1e-4)
    assert np.allclose(matrix[:, 1, :2], [0, 1], atol=1e-6)
    assert 0 <= matrix[:, 1, 2].min() < 2 < 18 < matrix[:, 1, 2].max() <= 20
    # The logit's clamp moves 0 and 255 by 1e-7 of the scale, and float32 rounds by 6e-8.
    assert np.allclose(todo.luts, np.arange(256) / 255, atol=2e-7)


# The range of each parameter under this policy, in which it is uniform, or uniform in the logarithm.
EVERYTHING = Augment(max_shear=20, max_translate=0.3, max_gamma=1, max_solarize=0.5, max_posterize=3, p_invert=0.25)
SPREADS = {
    **{"rotate": (-10, 10), "zoom": (1, 1.1), "warp_x": (-0.2, 0.2), "warp_y": (-0.2, 0.2)},
    **{"shear_x": (-20, 20), "shear_y": (-20, 20), "translate_x": (-0.3, 0.3), "translate_y": (-0.3, 0.3)},
    **{"brightness": (0.4, 0.6), "solarize": (0.5, 1)},
}
LOG_SPREADS = {"contrast": (0.8, 1 / 0.8), "gamma": (0.5, 2)}


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Within the range, near to both ends, and with the mean and the spread of uniform numbers, to 5 deviations."""
    assert low <= values.min() < low + (high - low) / 1000
    assert high - (high - low) / 1000 < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * len(values))
    # The variance of (high - low)^2 / 12 has a deviation of (high - low)^2 / sqrt(180 n).
    assert abs(values.var() - (high - low) ** 2 / 12) < 5 * (high - low) ** 2 / np.sqrt(180 * len(values))


def assert_share(fired: np.ndarray, p: float) -> None:
    assert abs(fired.mean() - p) <= 5 * np.sqrt(p * (1 - p) / len(fired))


@pytest.mark.parametrize("name", [*SPREADS, *LOG_SPREADS])
def test_each_change_happens_as_often_as_it_should_and_spreads_over_its_range(
    uniforms: transforms.Uniforms, name: str
) -> None:
    parameters = transforms.parameters_from_uniforms(uniforms, EVERYTHING)[name]
    fired = parameters != transforms.IDENTITY[name]
    assert_share(fired, 0.75)
    if name in SPREADS:
        assert_uniform(parameters[fired], *SPREADS[name])
    else:
        assert_uniform(np.log(parameters[fired]), *np.log(LOG_SPREADS[name]))


def test_flips_inversions_bits_places_and_crops_are_spread_as_they_should(uniforms: transforms.Uniforms) -> None:
    parameters = transforms.parameters_from_uniforms(uniforms, EVERYTHING)
    assert_share(parameters["flip"], 0.5)
    assert_share(parameters["invert"], 0.25)
    for bits in (1, 2, 3):  # a fourth of those that fire drops none
        assert_share(parameters["posterize"] == bits, 0.75 / 4)
    assert_uniform(np.linalg.det(transforms.random_crop(uniforms, 0.75)), 0.75, 1)
    for name in ("presize_x", "presize_y", "zoom_x", "zoom_y", "crop_x", "crop_y"):
        assert_uniform(uniforms[name], 0, 1)


def test_random_numbers_are_uncorrelated(uniforms: transforms.Uniforms) -> None:
    correlations = np.corrcoef(np.stack(list(uniforms.values()))) - np.eye(len(uniforms))
    assert abs(correlations).max() < 6 / np.sqrt(COUNT)


def test_a_crop_stays_on_the_canvas() -> None:
    uniforms = {name: np.random.default_rng(0).random(1000) for name in transforms.STREAM}
    crops = transforms.random_crop(uniforms, 0.5)
    corners = np.stack([crops @ [s, t, 1.0] for s in (-1, 1) for t in (-1, 1)])
    assert abs(corners[..., :2]).max() <= 1 + 1e-12


def test_trivial_geometric_makes_one_change_per_image_or_none_all_equally_often(uniforms: transforms.Uniforms) -> None:
    parameters = transforms.parameters_from_uniforms(uniforms, TRIVIAL)
    changed = {name: parameters[name] != neutral for name, neutral in transforms.IDENTITY.items()}
    happening = ("rotate", "brightness", "solarize", "posterize", "shear_x", "shear_y", "translate_x", "translate_y")
    assert set(TRIVIAL.changes) == set(happening)
    assert (sum(changed.values()) <= 1).all()
    for name, fired in changed.items():
        # Where posterize fires, a seventh of its numbers drops no bits.
        share = 1 / 9 * (6 / 7 if name == "posterize" else 1) if name in happening else 0
        assert_share(fired, share)


def test_mult_scales_rotation_warp_shear_translation_lighting_and_gamma(uniforms: transforms.Uniforms) -> None:
    given = {"max_rotate": 20, "max_warp": 0.1, "max_shear": 5, "max_translate": 0.1, "max_lighting": 0.2,
             "max_gamma": 0.5}  # fmt: skip
    scaled = transforms.parameters_from_uniforms(uniforms, Augment(**given, mult=2))
    doubled = transforms.parameters_from_uniforms(
        uniforms, Augment(**{name: 2 * amount for name, amount in given.items()})
    )
    assert all((scaled[name] == doubled[name]).all() for name in scaled)


@pytest.mark.parametrize(
    "wrong",
    [{"p_flip": 1.5}, {"max_zoom": 0.5}, {"max_warp": 0.2, "mult": 2}, {"max_contrast": 1.0}, {"min_scale": float("nan")},
     {"max_posterize": 8}, {"max_shear": 90}, {"max_solarize": -0.1}, {"max_gamma": -1}],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(FastpetsError, match=f"Augment.{next(iter(wrong))}.*expected"):
        Augment(**wrong)


def test_white_stays_white_where_nothing_is_solarized_however_strong_the_contrast() -> None:
    _, parameters = transforms.random_parameters(np.arange(1000), Augment(max_brightness=0, max_contrast=0.9), 0, 0, 0)
    assert (np.diff(transforms.toned(parameters), axis=1) >= 0).all()

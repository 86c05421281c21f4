"""Draws, policies and what they compose to: one matrix and one table an image."""

import numpy as np
import pytest
import torch

from fastpets.augment import transforms as augment_transforms
from fastpets.augment.policy import POLICIES, Augment
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from fastpets.errors import FastpetsError
from fastpets.utils import philox

PLAIN = ((0.0,) * 3, (1.0,) * 3)
COUNT = 100_000
TRIVIAL = POLICIES["trivial-geometric"]


def moved(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    """Where a homography takes a point."""
    point = matrix @ [x, y, 1]
    return point[:2] / point[2]


@pytest.fixture(scope="module")
def draws() -> augment_transforms.Draws:
    numbers = philox.uniforms(philox.AUGMENT, 5, 2, np.arange(COUNT), 0, len(augment_transforms.DRAWS))
    return dict(zip(augment_transforms.DRAWS, numbers.T, strict=True))


def test_validation_sees_the_centre_square_and_nothing_else() -> None:
    heights, widths = np.array([100, 300]), np.array([140, 200])
    todo = augment_transforms.transforms(np.array([0, 1]), heights, widths, size=(25, 25), normalization=PLAIN)
    for matrix, (left, top, side) in zip(todo.source_from_output, [(20, 0, 100), (0, 50, 200)], strict=True):
        # 300 x 200 is halved: its shorter side exceeds four times the output's 25.
        scale = 100 / side
        assert moved(matrix, 0, 0) == pytest.approx([left * scale, top * scale])
        assert moved(matrix, 25, 25) == pytest.approx([(left + side) * scale, (top + side) * scale])
    assert todo.shrink.tolist() == [[1, 1], [2, 2]]
    assert todo.samples.tolist() == [2, 2]


def test_validation_tables_normalise_and_do_nothing_else() -> None:
    todo = augment_transforms.transforms(
        np.arange(2), *np.full((2, 2), 9), size=(9, 9), normalization=(IMAGENET_MEAN, IMAGENET_STD)
    )
    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    from torchvision.augment_transforms.v2 import Compose, Normalize, ToDtype

    expected = Compose([ToDtype(torch.float32, scale=True), Normalize(IMAGENET_MEAN, IMAGENET_STD)])(values)[:, 0]
    # As derived in test_values.py.
    assert np.abs(todo.luts - expected.numpy()).max() <= 7 * 2**-25 / 0.224 + 2 * (4 * 2**-24 + 2**-23)


def test_without_normalisation_tables_are_the_8_bit_values() -> None:
    todo = augment_transforms.transforms(np.arange(2), *np.full((2, 2), 9), size=(9, 9))
    assert todo.luts.dtype == np.uint8
    assert (todo.luts == np.arange(256)).all()


def test_a_shrunk_images_matrix_shows_the_same_region() -> None:
    given = {"size": (100, 100), "augment": Augment(), "normalization": PLAIN}
    ids, height, width = np.array([0]), np.array([1000]), np.array([1503])
    whole, shrunk = (augment_transforms.transforms(ids, height, width, presize=side, **given) for side in (5000, 150))
    assert whole.shrink.tolist() == [[1, 1]]
    assert shrunk.shrink.tolist() == [[7, 7]]  # 1000 / 150, rounded up
    for x, y in [(0, 0), (100, 0), (37, 81)]:
        point = moved(whole.source_from_output[0], x, y) / 7
        assert moved(shrunk.source_from_output[0], x, y) == pytest.approx(point, abs=1e-3)


def test_without_any_draw_firing_training_is_a_random_square_of_the_image() -> None:
    still = Augment(flip_p=0, affine_p=0, lighting_p=0, min_scale=1)
    todo = augment_transforms.transforms(
        np.arange(50), np.full(50, 80), np.full(50, 60), size=(60, 60), augment=still, normalization=PLAIN
    )
    matrix = todo.source_from_output
    assert np.allclose(matrix[:, 0], [1, 0, 0], atol=1e-4)
    assert np.allclose(matrix[:, 1, :2], [0, 1], atol=1e-6)
    assert 0 <= matrix[:, 1, 2].min() < 2 < 18 < matrix[:, 1, 2].max() <= 20
    # The logit's clamp moves 0 and 255 by 1e-7 of the scale, and float32 rounds by 6e-8.
    assert np.allclose(todo.luts, np.arange(256) / 255, atol=2e-7)


# Of each change: its amounts' range under the amounts below, the mean of what fires, and how it is spread between.
EVERYTHING = Augment(shear_deg=20, translate=0.3, gamma=1, solarize=0.5, posterize=3, invert_p=0.25)
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
    draws: augment_transforms.Draws, name: str
) -> None:
    amounts = augment_transforms.amounts(draws, EVERYTHING)[name]
    fired = amounts != augment_transforms.NEUTRAL[name]
    assert_share(fired, 0.75)
    if name in SPREADS:
        assert_uniform(amounts[fired], *SPREADS[name])
    else:
        assert_uniform(np.log(amounts[fired]), *np.log(LOG_SPREADS[name]))


def test_flips_inversions_bits_places_and_crops_are_spread_as_they_should(draws: augment_transforms.Draws) -> None:
    amounts = augment_transforms.amounts(draws, EVERYTHING)
    assert_share(amounts["flip"], 0.5)
    assert_share(amounts["invert"], 0.25)
    for bits in (1, 2, 3):  # a fourth of those that fire drops none
        assert_share(amounts["posterize"] == bits, 0.75 / 4)
    assert_uniform(np.linalg.det(augment_transforms.random_crop(draws, 0.75)), 0.75, 1)
    for name in ("presize_x", "presize_y", "zoom_x", "zoom_y", "crop_x", "crop_y"):
        assert_uniform(draws[name], 0, 1)


def test_draws_do_not_go_together(draws: augment_transforms.Draws) -> None:
    correlations = np.corrcoef(np.stack(list(draws.values()))) - np.eye(len(draws))
    assert abs(correlations).max() < 6 / np.sqrt(COUNT)


def test_a_crop_stays_on_the_canvas() -> None:
    draws = {name: np.random.default_rng(0).random(1000) for name in augment_transforms.DRAWS}
    crops = augment_transforms.random_crop(draws, 0.5)
    corners = np.stack([crops @ [s, t, 1.0] for s in (-1, 1) for t in (-1, 1)])
    assert abs(corners[..., :2]).max() <= 1 + 1e-12


def test_trivial_geometric_makes_one_change_a_image_or_none_all_equally_often(draws: augment_transforms.Draws) -> None:
    amounts = augment_transforms.amounts(draws, TRIVIAL)
    changed = {name: amounts[name] != neutral for name, neutral in augment_transforms.NEUTRAL.items()}
    happening = ("rotate", "brightness", "solarize", "posterize", "shear_x", "shear_y", "translate_x", "translate_y")
    assert set(TRIVIAL.changes) == set(happening)
    assert (sum(changed.values()) <= 1).all()
    for name, fired in changed.items():
        # Where posterize fires, a seventh of its draws drops no bits.
        share = 1 / 9 * (6 / 7 if name == "posterize" else 1) if name in happening else 0
        assert_share(fired, share)


def test_mult_scales_rotation_warp_shear_translation_lighting_and_gamma(draws: augment_transforms.Draws) -> None:
    given = {"rotate_deg": 20, "warp": 0.1, "shear_deg": 5, "translate": 0.1, "brightness": 0.2, "contrast": 0.2,
             "gamma": 0.5}  # fmt: skip
    scaled = augment_transforms.amounts(draws, Augment(**given, mult=2))
    doubled = augment_transforms.amounts(draws, Augment(**{name: 2 * amount for name, amount in given.items()}))
    assert all((scaled[name] == doubled[name]).all() for name in scaled)


@pytest.mark.parametrize(
    "wrong",
    [{"flip_p": 1.5}, {"zoom": 0.5}, {"warp": 0.2, "mult": 2}, {"contrast": 1.0}, {"min_scale": float("nan")},
     {"posterize": 8}, {"shear_deg": 90}, {"solarize": -0.1}, {"gamma": -1}],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(FastpetsError, match=f"Augment.{next(iter(wrong))}.*expected"):
        Augment(**wrong)


def test_white_stays_white_where_nothing_is_solarized_however_strong_the_contrast() -> None:
    _, todo = augment_transforms.draws(np.arange(1000), Augment(brightness=0, contrast=0.9), 0, 0, 0)
    assert (np.diff(augment_transforms.changed_values(todo), axis=1) >= 0).all()

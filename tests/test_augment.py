"""The matrices and tables: what each draw does to points and values, and that all compose into one of each."""

import numpy as np
import pytest
import torch

from fastpets import augment
from fastpets.config import IMAGENET_MEAN, IMAGENET_STD, Augment
from fastpets.errors import FastpetsError

IDENTITY = np.eye(3)
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def moved(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    """Where a homography takes a point."""
    point = matrix @ [x, y, 1]
    return point[:2] / point[2]


def random_draws(count: int, seed: int = 0) -> augment.Draws:
    random = np.random.default_rng(seed)
    return {name: random.random(count) for name in augment.DRAWS}


def test_validation_sees_the_centre_square_and_nothing_else() -> None:
    todo = augment.transforms(
        np.array([0, 1]),
        np.array([100, 300]),
        np.array([140, 200]),
        size=50,
        presize=460,
        augment=None,
        **PLAIN,
    )
    for matrix, (left, top, side) in zip(todo.source_from_output, [(20, 0, 100), (0, 50, 200)], strict=True):
        # 300 x 200 is shrunk to 150 x 100: its shorter side exceeds twice the output's 50.
        scale = 100 / side
        assert moved(matrix, 0, 0) == pytest.approx([left * scale, top * scale])
        assert moved(matrix, 50, 50) == pytest.approx([(left + side) * scale, (top + side) * scale])


def test_validation_tables_normalise_and_do_nothing_else() -> None:
    todo = augment.transforms(
        np.arange(2),
        *np.full((2, 2), 9),
        size=9,
        presize=460,
        augment=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    from torchvision.transforms.v2 import Compose, Normalize, ToDtype

    expected = Compose([ToDtype(torch.float32, scale=True), Normalize(IMAGENET_MEAN, IMAGENET_STD)])(values)[:, 0]
    # torch rounds 1 / 255, the value, the mean and their difference to float32, 2**-25 at most each, and divides by a
    # std of at least 0.224, itself rounded by 2**-24 relative; the quotients, ours too, are below 4: 2**-23 each.
    assert np.abs(todo.tables - expected.numpy()).max() <= 4 * 2**-25 / 0.224 + 4 * 2**-24 + 2 * 2**-23


@pytest.mark.parametrize(
    ("height", "width", "limit", "shrunk"),
    [
        (100, 50, 64, (100, 50)),
        (64, 900, 64, (64, 900)),
        (128, 256, 64, (64, 128)),
        (300, 200, 64, (96, 64)),
        (1, 1, 9, (1, 1)),
    ],
)
def test_only_pictures_beyond_the_limit_shrink_and_keep_their_shape(
    height: int, width: int, limit: int, shrunk: tuple[int, int]
) -> None:
    found = augment.shrunk_sizes(np.array([height]), np.array([width]), limit)
    assert (int(found[0][0]), int(found[1][0])) == shrunk


def test_a_shrunk_pictures_matrix_shows_the_same_region() -> None:
    ids, height, width = np.array([0]), np.array([1000]), np.array([1503])
    large = augment.transforms(ids, height, width, size=100, presize=5000, augment=Augment(), **PLAIN)
    small = augment.transforms(ids, height, width, size=100, presize=150, augment=Augment(), **PLAIN)
    assert tuple(large.shrunk_size[0]) == (
        200,
        301,
    )  # 300.6 rounded: the two axes shrink by slightly different factors
    assert tuple(small.shrunk_size[0]) == (150, 225)
    for x, y in [(0, 0), (100, 0), (37, 81)]:
        point = moved(large.source_from_output[0], x, y) / [301, 200]
        assert moved(small.source_from_output[0], x, y) / [225, 150] == pytest.approx(point, abs=1e-5)


def test_flipping_twice_restores() -> None:
    flip = augment.flip(np.array([True, False]))
    assert (flip @ flip == IDENTITY).all()
    assert moved(flip[0], 0.5, 0.25) == pytest.approx([-0.5, 0.25])


def test_four_quarter_turns_restore() -> None:
    quarter = augment.rotation(np.array([90.0]))[0]
    assert np.allclose(np.linalg.matrix_power(quarter, 4), IDENTITY, atol=1e-15)
    # What is seen at the right, (1, 0), comes from the top, (0, -1): the picture turned clockwise.
    assert moved(quarter, 1, 0) == pytest.approx([0, -1])


def test_a_zoom_keeps_its_point_and_enlarges_about_it() -> None:
    zoom = augment.zoom(np.array([2.0]), np.array([0.75]), np.array([0.1]))[0]
    x, y = 2 * 0.75 - 1, 2 * 0.1 - 1
    assert moved(zoom, x, y) == pytest.approx([x, y])
    assert moved(zoom, x + 0.2, y - 0.1) == pytest.approx([x + 0.1, y - 0.05])


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.2, 0.0), (0.0, -0.2), (0.2, 0.15), (-0.45, 0.45)])
def test_the_warp_takes_the_named_corners_back_to_the_canvas_corners(x: float, y: float) -> None:
    warp = augment.warp(np.array([x]), np.array([y]))[0]
    for s in (-1, 1):
        for t in (-1, 1):
            assert moved(warp, s * (1 - y * t), t * (1 - x * s)) == pytest.approx([s, t], abs=1e-12)


def test_a_crop_stays_on_the_canvas_and_keeps_its_share_of_the_area() -> None:
    crops = augment.random_crop(random_draws(1000), Augment(min_scale=0.5))
    corners = np.stack([crops @ [s, t, 1.0] for s in (-1, 1) for t in (-1, 1)])
    assert abs(corners[..., :2]).max() <= 1 + 1e-12
    areas = np.linalg.det(crops)
    assert 0.5 <= areas.min() < 0.51
    assert 0.99 < areas.max() <= 1


def test_without_any_draw_firing_training_is_a_random_square_of_the_picture() -> None:
    still = Augment(flip_p=0, affine_p=0, lighting_p=0, min_scale=1)
    todo = augment.transforms(
        np.arange(50), np.full(50, 80), np.full(50, 60), size=60, presize=60, augment=still, **PLAIN
    )
    matrix = todo.source_from_output
    assert np.allclose(matrix[:, 0], [1, 0, 0], atol=1e-4)
    assert np.allclose(matrix[:, 1, :2], [0, 1], atol=1e-6)
    assert 0 <= matrix[:, 1, 2].min() < 2 < 18 < matrix[:, 1, 2].max() <= 20
    # The logit's clamp moves 0 and 255 by 1e-7 of the scale, and float32 rounds by 6e-8.
    assert np.allclose(todo.tables, np.arange(256) / 255, atol=2e-7)


def test_lighting_is_fastais_formula() -> None:
    draws = {name: np.zeros(3) for name in augment.DRAWS}  # every gate open
    draws |= {"brightness": np.array([0.0, 0.5, 1.0]), "contrast": np.array([1.0, 0.5, 0.0])}
    tables = augment.lighting(draws, Augment(lighting=0.2))
    values = torch.arange(256, dtype=torch.float64) / 255
    for table, brightness, contrast in zip(tables, (0.4, 0.5, 0.6), (1 / 0.8, 1.0, 0.8), strict=True):
        logits = torch.logit(values, eps=1e-7) + torch.logit(torch.tensor(brightness, dtype=torch.float64))
        assert np.allclose(table, torch.sigmoid(contrast * logits), rtol=0, atol=1e-12)


def test_mult_scales_rotation_warp_and_lighting() -> None:
    draws = random_draws(20)
    doubled = Augment(rotate_deg=20, warp=0.4, lighting=0.4)
    assert (augment.geometry(draws, Augment(mult=2)) == augment.geometry(draws, doubled)).all()
    assert (augment.lighting(draws, Augment(mult=2)) == augment.lighting(draws, doubled)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip_p": 1.5},
        {"zoom": 0.5},
        {"warp": 0.4, "mult": 2},
        {"lighting": 1.0},
        {"min_scale": float("nan")},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(FastpetsError, match=f"Augment.{next(iter(wrong))}.*expected"):
        Augment(**wrong)

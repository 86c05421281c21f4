"""Matrices and lookup tables that transforms compose to, and selection and replacement of their rows."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import Compose, Normalize, ToDtype

from fastpets.augment import lookup_tables
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import Preprocessing
from fastpets.augment.random_parameters import draw_parameters
from fastpets.augment.transforms import Transforms, tone_luts, transforms


def plain(size: tuple[int, int], **fields) -> Preprocessing:
    """Preprocessing whose normalisation changes nothing."""
    return Preprocessing(size=size, mean=(0, 0, 0), std=(1, 1, 1), **fields)


def mapped(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    """Applies a homography to a point."""
    point = matrix @ [x, y, 1]
    return point[:2] / point[2]


def test_validation_is_the_centre_square() -> None:
    heights, widths = np.array([100, 300]), np.array([140, 200])
    found = transforms(np.array([0, 1]), heights, widths, plain((25, 25)))
    for matrix, (left, top, side) in zip(found.source_from_output, [(20, 0, 100), (0, 50, 200)], strict=True):
        # 300 x 200 is halved: its shorter side exceeds four times the output's 25.
        scale = 100 / side
        assert mapped(matrix, 0, 0) == pytest.approx([left * scale, top * scale])
        assert mapped(matrix, 25, 25) == pytest.approx([(left + side) * scale, (top + side) * scale])
    assert found.shrink.tolist() == [[1, 1], [2, 2]]
    assert found.samples.tolist() == [2, 2]


def test_validation_luts_only_normalise() -> None:
    preprocessing = Preprocessing(size=(9, 9))
    found = transforms(np.arange(2), *np.full((2, 2), 9), preprocessing)
    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    normalize = Compose([ToDtype(torch.float32, scale=True), Normalize(preprocessing.mean, preprocessing.std)])
    # As derived in test_lookup_tables.py.
    most = 7 * 2**-25 / 0.224 + 2 * (4 * 2**-24 + 2**-23)
    assert np.abs(found.luts - normalize(values)[:, 0].numpy()).max() <= most


def test_uint8_luts_of_validation_are_the_identity() -> None:
    found = transforms(np.arange(2), *np.full((2, 2), 9), Preprocessing(size=(9, 9), output="uint8"))
    assert found.luts.dtype == np.uint8
    assert (found.luts == np.arange(256)).all()


def test_a_shrunk_images_matrix_covers_the_same_region() -> None:
    ids, height, width = np.array([0]), np.array([1000]), np.array([1503])
    whole, shrunk = (
        transforms(ids, height, width, plain((100, 100), presize=side), augment=Augment()) for side in (5000, 150)
    )
    assert whole.shrink.tolist() == [[1, 1]]
    assert shrunk.shrink.tolist() == [[7, 7]]  # 1000 / 150, rounded up
    for x, y in [(0, 0), (100, 0), (37, 81)]:
        point = mapped(whole.source_from_output[0], x, y) / 7
        assert mapped(shrunk.source_from_output[0], x, y) == pytest.approx(point, abs=1e-3)


def test_images_are_shrunk_for_another_size_on_request() -> None:
    found = transforms(np.array([0]), np.array([300]), np.array([300]), plain((25, 25)), shrink_for=(100, 100))
    assert found.shrink.tolist() == [[1, 1]]


def test_without_any_operation_training_is_a_random_square_of_the_image() -> None:
    still = Augment(p_flip=0, p_affine=0, p_lighting=0, min_scale=1)
    found = transforms(np.arange(50), np.full(50, 80), np.full(50, 60), plain((60, 60)), augment=still)
    matrix = found.source_from_output
    assert np.allclose(matrix[:, 0], [1, 0, 0], atol=1e-4)
    assert np.allclose(matrix[:, 1, :2], [0, 1], atol=1e-6)
    assert 0 <= matrix[:, 1, 2].min() < 2 < 18 < matrix[:, 1, 2].max() <= 20
    # The logit's clamp moves 0 and 255 by 1e-7 of the scale, and float32 rounds by 6e-8.
    assert np.allclose(found.luts, np.arange(256) / 255, atol=2e-7)


def test_white_stays_white_without_solarize_however_strong_the_contrast() -> None:
    augment = Augment(max_brightness=0, max_contrast=0.9)
    luts = tone_luts(draw_parameters(np.arange(1000), augment, seed=0, epoch=0))
    assert (np.diff(luts, axis=1) >= 0).all()


def test_policies_without_lighting_give_each_image_the_same_lut() -> None:
    parameters = draw_parameters(np.arange(5), Augment(max_lighting=0), seed=0, epoch=0)
    luts = tone_luts(parameters)
    assert luts.shape == (1, 256)
    assert np.allclose(luts, lookup_tables.IDENTITY, atol=2e-7)


@pytest.fixture
def five() -> Transforms:
    sizes = np.array([100, 200, 300, 400, 500])
    return transforms(np.arange(5), sizes, sizes[::-1], plain((25, 25)), augment=Augment(), seed=1)


@pytest.mark.parametrize(
    "rows", [np.array([3, 0, 3]), np.array([True, False, True, True, False]), slice(1, 3), np.array([], int)]
)
def test_selected_rows_are_those_of_every_field(five: Transforms, rows: np.ndarray | slice) -> None:
    for found, array in zip(five.select(rows), five, strict=True):
        assert found.dtype == array.dtype
        assert np.array_equal(found, array[rows])


@pytest.mark.parametrize("rows", [2, np.array([4, 1])])
def test_replaced_rows_are_the_others_and_the_original_is_unchanged(five: Transforms, rows: int | np.ndarray) -> None:
    before = five.select(slice(None))
    count = np.size(rows)
    other = transforms(np.arange(count) + 9, *np.full((2, count), 77), plain((25, 25)), augment=Augment(), seed=2)
    found = five.replace(rows, other)
    kept = np.setdiff1d(np.arange(5), rows)
    for new, replacement, old, unchanged in zip(found, other, five, before, strict=True):
        assert new.dtype == old.dtype
        assert np.array_equal(new[np.atleast_1d(rows)], replacement)
        assert np.array_equal(new[kept], old[kept])
        assert np.array_equal(old, unchanged)


def test_an_images_transforms_do_not_depend_on_its_batch(five: Transforms) -> None:
    sizes = np.array([400]), np.array([200])
    alone = transforms(np.array([3]), *sizes, plain((25, 25)), augment=Augment(), seed=1)
    for found, array in zip(alone, five.select(np.array([3])), strict=True):
        assert np.array_equal(found, array)

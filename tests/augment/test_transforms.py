"""Matrices that transforms compose to, and their lookup tables, compiled and as written."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import Compose, Normalize, ToDtype

from fastpets.augment import lookup_tables
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import Preprocessing
from fastpets.augment.transforms import Transforms, transforms

PLAIN = (0, 0, 0), (1, 1, 1)  # a normalisation that changes nothing


def plain(size: tuple[int, int], **fields) -> Preprocessing:
    """Preprocessing whose normalisation changes nothing."""
    return Preprocessing(size=size, mean=PLAIN[0], std=PLAIN[1], **fields)


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
    luts = lookup_tables.luts(found.adjustments, preprocessing.normalization)
    assert np.abs(luts - normalize(values)[:, 0].numpy()).max() <= most


def test_uint8_luts_of_validation_are_the_identity() -> None:
    found = transforms(np.arange(2), *np.full((2, 2), 9), Preprocessing(size=(9, 9), output="uint8"))
    luts = lookup_tables.luts(found.adjustments, None)
    assert luts.dtype == np.uint8
    assert (luts == np.arange(256)).all()


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
    assert (found.adjustments == lookup_tables.NEUTRAL).all()


def test_white_stays_white_without_solarize_however_strong_the_contrast() -> None:
    augment = Augment(max_brightness=0, max_contrast=0.9)
    found = transforms(np.arange(1000), *np.full((2, 1000), 9), plain((9, 9)), augment=augment)
    assert (np.diff(lookup_tables.luts(found.adjustments, PLAIN), axis=2) >= 0).all()


def test_policies_without_lighting_adjust_nothing() -> None:
    found = transforms(np.arange(5), *np.full((2, 5), 9), plain((9, 9)), augment=Augment(max_lighting=0))
    assert (found.adjustments == lookup_tables.NEUTRAL).all()


EVERYTHING = Augment(max_shear=20, max_translate=0.3, max_gamma=1, max_solarize=0.5, max_posterize=3, p_invert=0.25)
POLICIES = [None, Augment(), EVERYTHING, replace(EVERYTHING, one_of=True), Augment(max_lighting=0)]
PREPROCESSINGS = [
    Preprocessing(size=(64, 64)),
    Preprocessing(size=(60, 96), presize_method="pad", presize=100, supersample=2),
    Preprocessing(size=(96, 60), presize_method="squish", output="uint8"),
]


def of_many_images(preprocessing: Preprocessing, augment: Augment | None, some: slice = slice(None)) -> Transforms:
    """Transforms of images of all orientations and many sizes."""
    ids = np.arange(32)[some]
    sizes = np.random.default_rng(0).integers(1, 900, (2, 32), np.int32)[:, some]
    return transforms(
        ids, *sizes, preprocessing, orientations=1 + ids % 8, augment=augment, seed=2**40 + 7, epoch=3,
        occurrences=ids % 3,
    )  # fmt: skip


def with_luts(preprocessing: Preprocessing, augment: Augment | None) -> tuple[np.ndarray, ...]:
    """Transforms of these images, and their lookup tables."""
    found = of_many_images(preprocessing, augment)
    return *found, lookup_tables.luts(found.adjustments, preprocessing.normalization)


@pytest.mark.parametrize("augment", POLICIES)
def test_an_images_transforms_do_not_depend_on_its_batch(augment: Augment | None) -> None:
    for preprocessing in PREPROCESSINGS:
        together = of_many_images(preprocessing, augment)
        for some in (slice(3, 4), slice(0, 0), slice(5, None, 3)):
            for found, array in zip(of_many_images(preprocessing, augment, some), together, strict=True):
                assert found.dtype == array.dtype
                assert np.array_equal(found, array[some])


def test_a_zero_pixel_image_has_factors_of_one() -> None:
    """A file that turns out to be bad is in a batch until then."""
    assert transforms(np.array([0]), np.array([0]), np.array([0]), plain((9, 9))).shrink.tolist() == [[1, 1]]


def test_compiled_transforms_are_those_of_the_code_as_written(tmp_path: Path) -> None:
    script = (
        "import sys, pickle\nfrom tests.augment.test_transforms import *\n"
        "found = [with_luts(p, a) for p in PREPROCESSINGS for a in POLICIES]\n"
        "pickle.dump(found, open(sys.argv[1], 'wb'))"
    )
    file = tmp_path / "transforms.pickle"
    subprocess.run([sys.executable, "-c", script, file], env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, check=True)
    as_written = iter(pickle.loads(file.read_bytes()))
    for preprocessing in PREPROCESSINGS:
        for augment in POLICIES:
            for found, expected in zip(with_luts(preprocessing, augment), next(as_written), strict=True):
                assert found.dtype == expected.dtype
                # Computed in float64, whose last digits may differ; most are rounded to float32.
                np.testing.assert_allclose(found, expected, rtol=2.0**-23, atol=0)

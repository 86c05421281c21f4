"""The matrices equal fastai's and torchvision's, their inverses undo them, and on pixels they do what they say."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import _get_inverse_affine_matrix

from fastpets import kernels
from fastpets.augment import geometry
from fastpets.augment.random_parameters import RandomParameters
from fastpets.augment.transforms import canvas_from_crop
from fastpets.kernels import reference
from fastpets.utils.compiled import compiled

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "fastai_transforms.json").read_text())["geometry"]
CORNERS = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]])  # of the canvas: (2, 4)
EACH = [(engine, shape) for engine in ("reference", "kernel") for shape in [(1, 1), (37, 53), (2000, 30), (460, 460)]]
on_pixels = pytest.mark.parametrize(("engine", "shape"), EACH)


def image_from_canvas(
    shape: tuple[int, int], size: tuple[int, int], method: str, x: float = 0.5, y: float = 0.5
) -> np.ndarray:
    return np.array(geometry.image_from_canvas(*shape, size, geometry.METHODS.index(method), x, y))


def mapped(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Applies a homography to points (2, N)."""
    x, y, w = matrix @ np.concatenate([points, np.ones((1, points.shape[1]))])
    return np.stack([x, y]) / w


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(shape: tuple[int, int]) -> np.ndarray:
    """image_from_canvas of the whole image."""
    return image_from_canvas(shape, shape, "squish")


def warped(engine: str, image: np.ndarray, image_from_crop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image warped by the kernel or the reference: (*size, 3), 0-255."""
    images = [torch.from_numpy(np.ascontiguousarray(image))]
    matrix = torch.from_numpy(np.float32(image_from_crop @ geometry.crop_from_output(size)))[None]
    one_sample = torch.ones(1, dtype=torch.int32), torch.ones(1)
    if engine == "reference":
        return reference.warp(images, matrix, *one_sample, size)[0].numpy()
    out = torch.empty(1, *size, 3, dtype=torch.uint8)
    kernels.warp(images, matrix, *one_sample, torch.arange(256).to(torch.uint8).repeat(1, 3, 1), out)
    return out[0].numpy()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["name"])
def test_points_of_the_crop_come_from_where_fastai_takes_them(golden: dict) -> None:
    fixed = dict(golden["parameters"])
    aspect = fixed.pop("aspect")
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, 5)], indexing="ij")
    found = mapped(np.array(canvas_from_crop(RandomParameters(**fixed), aspect)), np.stack([x.ravel(), y.ravel()]))
    # The file has 12 decimals, half a unit of which is 5e-13; float64 rounds by some 1e-15 on either side.
    assert found == pytest.approx(np.stack([np.ravel(golden["canvas_x"]), np.ravel(golden["canvas_y"])]), abs=6e-13)


# In the next three tests coordinates are pixel centres up to float32's rounding, at most 2000 * 2**-24 * 4 = 0.0005 px,
# which changes a value by less than half a step: rounded, it is the pixel's value.
@on_pixels
def test_the_identity_returns_the_image(engine: str, shape: tuple[int, int]) -> None:
    image = noise(*shape)
    assert (np.rint(warped(engine, image, whole(shape), shape)) == image).all()


@on_pixels
def test_a_whole_pixel_shift_is_a_slice_beside_a_reflection(engine: str, shape: tuple[int, int]) -> None:
    image, (height, width) = noise(*shape), shape
    down, right = 1 + height // 3, 1 + width // 4
    shift = geometry.translation(right / width, down / height)
    found = np.rint(warped(engine, image, whole(shape) @ shift, shape))
    assert (found[down:, right:] == image[: max(height - down, 0), : max(width - right, 0)]).all()
    assert (found == np.pad(image, [(down, 0), (right, 0), (0, 0)], mode="symmetric")[:height, :width]).all()


@on_pixels
def test_flips_and_quarter_turns_only_permute_pixels(engine: str, shape: tuple[int, int]) -> None:
    image = noise(*shape)
    mirrored = np.rint(warped(engine, image, whole(shape) @ geometry.flip(True), shape))
    assert (mirrored == image[:, ::-1]).all()
    for quarters in (1, 2, 3, -1):
        turn = geometry.rotation(90 * quarters)
        turned = np.rint(warped(engine, image, whole(shape) @ turn, shape[:: -1 if quarters % 2 else 1]))
        assert (turned == np.rot90(image, -quarters)).all()  # np.rot90 turns counterclockwise


def matrices_and_inverses(aspect: float) -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = 0.1, -0.06
    unwarp = [[1 - y**2, -x * y, x], [-x * y, 1 - x**2, y], [x, y, 1]]
    pairs = [
        (geometry.perspective(x, y), unwarp),
        (geometry.flip(True), geometry.flip(True)),
        (geometry.rotation(3.0, aspect), geometry.rotation(-3.0, aspect)),
        (geometry.shear(2.0, 0.0, aspect), geometry.shear(-2.0, 0.0, aspect)),
        (geometry.shear(0.0, 1.0, aspect), geometry.shear(0.0, -1.0, aspect)),
        (geometry.zoom(1.1, 0.3, 0.6), geometry.zoom(1 / 1.1, 0.3, 0.6)),
        (geometry.translation(0.02, -0.03), geometry.translation(-0.02, 0.03)),
    ]
    return [(np.array(matrix), np.array(inverse)) for matrix, inverse in pairs]


@pytest.mark.parametrize("aspect", [1, 53 / 37, 0.015])
def test_a_matrix_and_its_inverse_are_the_identity(aspect: float) -> None:
    pairs = matrices_and_inverses(aspect)
    all_of_them = np.linalg.multi_dot([matrix for matrix, _ in pairs] + [inverse for _, inverse in pairs[::-1]])
    for product in [matrix @ inverse for matrix, inverse in pairs] + [all_of_them]:
        # 13 products of three terms, each rounded by 2**-53; aspect scales intermediate values by up to 1 / 0.015.
        assert product / product[2, 2] == pytest.approx(np.eye(3), abs=13 * 3 * 2**-53 / min(aspect, 1))


@on_pixels
def test_a_homography_and_its_inverse_return_a_smooth_image(engine: str, shape: tuple[int, int]) -> None:
    height, width = shape
    y, x = np.mgrid[:height, :width] + 0.5
    exact = 127.5 + 60 * (np.sin(x[..., None] * 2 * np.pi / 53 + [0, 1, 2]) + np.sin(y[..., None] * 2 * np.pi / 53))
    matrices, inverses = zip(*matrices_and_inverses(width / height), strict=True)
    matrix, inverse = np.linalg.multi_dot(matrices), np.linalg.multi_dot(inverses[::-1])
    once = np.rint(warped(engine, np.rint(exact).astype(np.uint8), whole(shape) @ matrix, shape)).astype(np.uint8)
    twice = warped(engine, once, whole(shape) @ inverse, shape)
    # How many pixels within the first warp's result the second warp samples at each pixel; negative beyond it.
    canvas = np.stack([x.ravel() * 2 / width - 1, y.ravel() * 2 / height - 1])
    depth = ((1 - abs(mapped(inverse, canvas))) * [[width / 2], [height / 2]]).min(axis=0).reshape(shape)
    inside = (depth > 2) & (np.minimum(np.minimum(x, width - x), np.minimum(y, height - y)) > 2) | (shape == (1, 1))
    assert inside.mean() > 0.1
    # Second derivatives are below 60 * (2 * pi / 53)**2 = 0.84 on either axis; bilinear interpolation is off by an
    # eighth of each: 0.21. The first warp multiplies them by the squares of its own derivatives, whose sum is below 2.7
    # instead of 2, and 9.9 for the strip. Each of three roundings, before, between and after, adds half a step.
    most = 0.21 + 0.84 / 8 * (9.9 if shape == (2000, 30) else 2.7) + 3 * 0.5
    assert abs(twice - exact)[inside].max() < most


PRESIZED = [
    (shape, size, x, y)
    for shape in [(300, 200), (37, 530), (460, 460), (1, 1)]
    for size in [(224, 224), (100, 160)]
    for x, y in [(0.5, 0.5), (0, 1), (1, 0), (0.3, 0.8)]
]


@pytest.mark.parametrize(("shape", "size", "x", "y"), PRESIZED)
def test_presizing_keeps_the_region_that_pillow_keeps(
    shape: tuple[int, int], size: tuple[int, int], x: float, y: float
) -> None:
    height, width = shape
    crop, squish, pad = (image_from_canvas(shape, size, method, x, y)
                         for method in ("crop", "squish", "pad"))  # fmt: skip
    stub = SimpleNamespace(size=(width, height), resize=lambda size, method, box: box)  # returns the region
    left, top, right, bottom = ImageOps.fit(stub, size[::-1], centering=(x, y))
    assert mapped(crop, CORNERS) == pytest.approx(np.array([[left, right, right, left], [top, top, bottom, bottom]]))
    assert mapped(squish, CORNERS) == pytest.approx(np.array([[0, width, width, 0], [0, 0, height, height]]))
    white = Image.new("L", (width, height), 255)
    left, top, right, bottom = ImageOps.pad(white, size[::-1], Image.Resampling.BOX, centering=(x, y)).getbbox()
    found = mapped(np.linalg.inv(pad @ geometry.crop_from_output(size)), np.array([[0, width], [0, height]]))
    # Pillow rounds the size, then the position, of what it pastes to whole pixels of the output.
    assert found == pytest.approx(np.array([[left, right], [top, bottom]]), abs=1 + 1e-9)
    assert found[0, 1] - found[0, 0] == pytest.approx(right - left, abs=0.5 + 1e-9)


@pytest.mark.parametrize(
    ("shape", "size", "presize", "method", "factors"),
    [
        ((1, 1), (64, 64), None, "crop", (1, 1)),
        ((256, 900), (64, 64), None, "crop", (1, 1)),  # exactly four times the output
        ((257, 900), (64, 64), None, "crop", (2, 2)),
        ((999, 1008), (224, 224), 333, "crop", (3, 3)),  # exactly, but for rounding
        ((1200, 800), (64, 64), 100, "crop", (8, 8)),
        ((1200, 800), (64, 64), 800, "crop", (1, 1)),
        ((300, 300), (224, 224), 256, "crop", (1, 1)),  # 2 would leave 150 px for an output of 224
        ((447, 500), (224, 224), 256, "crop", (1, 1)),
        ((448, 500), (224, 224), 256, "crop", (2, 2)),
        ((449, 1200), (224, 224), 32, "squish", (2, 5)),
        ((1000, 1000), (64, 128), 128, "crop", (4, 4)),  # the canvas is 500 x 1000
        ((1200, 200), (64, 64), None, "squish", (5, 1)),
        ((1200, 800), (64, 128), None, "squish", (5, 2)),
        ((1200, 800), (64, 64), None, "pad", (5, 5)),
        ((2000, 3), (64, 64), None, "pad", (8, 3)),  # at least one pixel remains on either axis
    ],
)
def test_only_images_beyond_the_limit_shrink_and_by_the_smallest_sufficient_factor(
    shape: tuple[int, int], size: tuple[int, int], presize: int | None, method: str, factors: tuple[int, int]
) -> None:
    for order in (1, -1):  # as given, and with height and width exchanged
        max_ratio = geometry.max_ratio(size, presize)
        found = geometry.shrink_factors(*shape[::order], size[::order], max_ratio, geometry.METHODS.index(method))
        assert found == factors[::order]
        upright, turned = np.array([shape[::order]] * 2).T, np.array([1, 6], np.uint8)
        shrunk, shrunk_by = geometry.shrunk_sizes(*upright, turned, size[::order], presize, method)
        expected = [side // by for side, by in zip(shape[::order], found, strict=True)]
        assert shrunk.tolist() == [expected, expected[::-1]]
        assert shrunk_by.tolist() == [list(found), list(found)[::-1]]


@pytest.mark.parametrize("supersample", [1, 2, 4])
def test_samples_are_the_fewest_within_the_spacing_limit_and_blur_as_the_pixels_area(supersample: int) -> None:
    random = np.random.default_rng(0)
    matrices = np.tile(np.eye(3), (500, 1, 1))
    matrices[:, :2, :2] = random.normal(0, 1, (500, 2, 2)) * np.exp(random.uniform(-9, 3, (500, 1, 1)))
    shrink = random.integers(1, 9, 500)
    grids = [
        geometry.sampling(matrix, (300, 200), supersample, by) for matrix, by in zip(matrices, shrink, strict=True)
    ]
    samples, spread = map(np.array, zip(*grids, strict=True))
    covered = np.linalg.norm(matrices[:, :2, :2], axis=1).max(axis=1)  # width of an output pixel in source pixels
    spacing = covered * supersample / 2  # of one sample per pixel, relative to the limit
    assert (samples.min(), samples.max()) == (1, 16)
    assert ((samples == 1) | (samples - 1 < spacing)).all()
    assert ((samples == 16) | (spacing <= samples + 1e-8)).all()
    # Variances add up: that of shrinking, the mean of n points 1 / n apart, of a sample, and of the grid.
    of_shrinking = [np.var(np.arange(by) / by) for by in shrink]
    grid = covered**2 - geometry.BILINEAR_BLUR - 12 * np.array(of_shrinking)
    assert (spread * covered) ** 2 == pytest.approx(np.maximum(grid, 0), rel=1e-12, abs=1e-12)


def test_samples_depend_on_the_larger_axis_and_the_mean_of_opposite_edges_within_the_limit() -> None:
    size = (100, 100)
    squished = image_from_canvas((100, 900), size, "squish") @ geometry.crop_from_output(size)
    upright = image_from_canvas((900, 100), size, "squish") @ geometry.crop_from_output(size)
    # Source pixels per output pixel: 3 on the upper edge, 1 on the lower and the left one, 2.2 on the right one.
    trapezoid = np.array([[3, 0, 0], [0, 3, 0], [0, 0.02, 1]])
    horizon = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # through two of the output's corners
    for matrix, expected in ((squished, 5), (upright, 5), (trapezoid, 1)):
        assert geometry.sampling(matrix, size, 1, 1)[0] == expected
    for wild in (horizon, horizon * np.nan):
        samples, spread = compiled_sampling(as_matrix(wild), size)  # Python does not divide by zero
        assert 1 <= samples <= 16
        assert 0 <= spread <= 1


@compiled
def compiled_sampling(matrix: geometry.Matrix, size: tuple[int, int]) -> tuple[int, float]:
    return geometry.sampling(matrix, size, 1, 1)


def as_matrix(array: np.ndarray) -> geometry.Matrix:
    return tuple(tuple(row) for row in array.tolist())


@pytest.mark.parametrize(("height", "width"), [(224, 224), (100, 300), (320, 200)])
@pytest.mark.parametrize(
    ("degrees", "lean", "share"),
    [(25, (0, 0), (0, 0)), (-140, (0, 0), (0, 0)), (0, (20, -35), (0, 0)), (0, (0, 0), (0.1, -0.3))],
)
def test_rotation_shear_and_translation_are_torchvisions_at_any_aspect_ratio(
    height: int, width: int, degrees: float, lean: tuple[float, float], share: tuple[float, float]
) -> None:
    aspect = width / height
    canvas = geometry.product(
        geometry.rotation(degrees, aspect), geometry.shear(*lean, aspect), geometry.translation(*share)
    )
    pixels_from_canvas = np.diag([width / 2, height / 2, 1])
    found = pixels_from_canvas @ canvas @ np.linalg.inv(pixels_from_canvas)
    expected = _get_inverse_affine_matrix([0, 0], degrees, (share[0] * width, share[1] * height), 1, lean)
    assert found.ravel() == pytest.approx([*expected, 0, 0, 1], abs=1e-12)  # tens of float64 units at 100 px


def test_a_zoom_enlarges_about_its_fixed_point() -> None:
    zoom = geometry.zoom(2.0, 0.75, 0.1)
    x, y = 2 * 0.75 - 1, 2 * 0.1 - 1
    assert mapped(zoom, np.array([[x, x + 0.2], [y, y - 0.1]])) == pytest.approx(
        np.array([[x, x + 0.1], [y, y - 0.05]])
    )


@pytest.mark.parametrize(("x", "y"), [(0, 0), (0.2, 0), (0, -0.2), (0.2, 0.15), (-0.35, 0.35)])
def test_the_perspective_maps_the_moved_corners_back_to_the_canvas_corners(x: float, y: float) -> None:
    s, t = CORNERS
    moved = np.stack([s * (1 - y * t), t * (1 - x * s)])
    assert mapped(geometry.perspective(x, y), moved) == pytest.approx(CORNERS)

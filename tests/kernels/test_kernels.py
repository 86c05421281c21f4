"""The CPU kernels equal the reference up to rounding, and the reference equals its definition by hand."""

import numpy as np
import pytest
import torch

from fastpets import kernels
from fastpets.kernels import reference
from fastpets.kernels.memory import addresses_and_sizes
from fastpets.utils.validation import MAX_BATCH_SIZE
from tests.images import drawing

SHAPES = [(1, 1), (1, 7), (5, 2), (37, 53), (2000, 30), (460, 460)]
BORDERS = ("reflect", "border", "zeros")
SAME = torch.arange(256).to(torch.uint8).expand(1, 3, 256)  # the identity lookup table


def homographies(shapes: list[tuple[int, int]], size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Random matrices (B, 3, 3) float32, one per image, with rotation, shear, perspective and points off the image."""
    random = np.random.default_rng(seed)
    whole = [np.diag([width / size[1], height / size[0], 1.0]) for height, width in shapes]
    tilt = [np.eye(3) + random.normal(0, [[0.2, 0.2, 8], [0.2, 0.2, 8], [0.0005, 0.0005, 0]]) for _ in shapes]
    return torch.from_numpy(np.float32([a @ b for a, b in zip(whole, tilt, strict=True)]))


def spreads(batch_size: int) -> torch.Tensor:
    return torch.tensor([0.6, 1.0, 0.8]).repeat(batch_size)[:batch_size]


def warped(images: list[torch.Tensor], matrices: torch.Tensor, factors: torch.Tensor, size: tuple[int, int],
           borders: str = "reflect") -> torch.Tensor:  # fmt: skip
    """Warps images by the kernel and the identity lookup table: (B, *size, 3) uint8."""
    out = torch.empty(len(images), *size, 3, dtype=torch.uint8)
    kernels.warp(images, matrices, factors, spreads(len(images)), SAME.repeat(len(images), 1, 1), out, borders)
    return out


@pytest.mark.parametrize("borders", BORDERS)
def test_a_ragged_batch_equals_the_reference_up_to_float32_rounding(borders: str) -> None:
    size = 40, 300  # more columns than the kernel sums at once
    images = [torch.from_numpy(np.array(drawing(height, width, seed=height))) for height, width in SHAPES]
    factors = torch.tensor([1, 2, 3, 1, 2, 4], dtype=torch.int32)
    matrices = homographies(SHAPES, size)
    exact = reference.warp(images, matrices, factors, spreads(len(images)), size, borders)
    found = warped(images, matrices, factors, size, borders).double()
    # Half a step for the rounding to 8 bits, and a tenth for float32: coordinates below 4,096 px have an error of about
    # 2**-24 * 4096 * 4 = 0.001 px, and these drawings have slopes of up to 100 steps a pixel.
    assert (found - exact).abs().max() < 0.5 + 0.1


@pytest.mark.parametrize("borders", BORDERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_extreme_and_nan_matrices_read_nothing_outside_the_image(shape: tuple[int, int], borders: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(100, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
    wild = torch.randn(50, 3, 3, generator=generator) * torch.tensor([1e3, 1e3, 1])[:, None]
    wild = torch.cat([wild, torch.full((2, 3, 3), float("nan")), torch.zeros(1, 3, 3), torch.full((1, 3, 3), 1e38)])
    memory = torch.zeros(
        image.numel() + 64, dtype=torch.uint8
    )  # a zero in the output would be read from around the image
    memory[32:-32] = image.flatten()
    inside = memory[32:-32].view(*shape, 3)
    found = warped([inside] * len(wild), wild, torch.ones(len(wild), dtype=torch.int32), (9, 9), borders)
    if borders != "zeros":
        assert found.min() >= 100


@pytest.mark.parametrize("dtype", kernels.DTYPES)
def test_outputs_are_lookup_table_entries_bit_for_bit(dtype: torch.dtype) -> None:
    shapes, size = [(37, 53), (5, 2), (64, 64)], (11, 19)
    images = [torch.from_numpy(np.array(drawing(height, width))) for height, width in shapes]
    matrices, factors = homographies(shapes, size), torch.tensor([1, 2, 1], dtype=torch.int32)
    generator = torch.Generator().manual_seed(1)
    luts = (100 * torch.randn(3, 3, 256, generator=generator)).abs().to(dtype)
    out = torch.empty(3, *size, 3, dtype=dtype)
    kernels.warp(images, matrices, factors, spreads(3), luts, out)
    assert torch.equal(out, reference.look_up(warped(images, matrices, factors, size), luts))


def test_more_samples_approximate_the_mean_over_the_pixel_area_better() -> None:
    image = torch.from_numpy(np.array(drawing(460, 460)))
    whole = torch.diag(torch.tensor([460 / 64, 460 / 64, 1]))[None]
    area = reference.warp([image], whole, torch.tensor([16]), torch.ones(1), (64, 64))
    whole_pixels, errors = torch.ones(1), []
    for k in (1, 2, 4):
        out = torch.empty(1, 64, 64, 3, dtype=torch.uint8)
        kernels.warp([image], whole, torch.tensor([k], dtype=torch.int32), whole_pixels, SAME.contiguous(), out)
        errors.append((out - area).abs().mean())
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]  # not by 2 each time: all are rounded to 8 bits


def test_the_reference_look_up_maps_each_value_to_its_table_entry() -> None:
    pixels = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    luts = torch.randn(2, 3, 256)
    found = reference.look_up(pixels, luts)
    for index in np.ndindex(2, 5, 4, 3):
        image, _, _, channel = index
        assert found[index] == luts[image, channel, int(pixels[index])]


def bilinear_by_hand(image: np.ndarray, x: float, y: float, borders: str) -> np.ndarray:
    """Interpolates at a point between the four pixels whose centres surround it."""
    column, row = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    value = np.zeros(3)
    for dy, wy in ((0, row + 1.5 - y), (1, y - row - 0.5)):
        for dx, wx in ((0, column + 1.5 - x), (1, x - column - 0.5)):
            value += wx * wy * pixel_by_hand(image, row + dy, column + dx, borders)
    return value


def pixel_by_hand(image: np.ndarray, row: int, column: int, borders: str) -> np.ndarray:
    height, width = image.shape[:2]
    if borders == "reflect":
        row, column = min(row % (2 * height), ~row % (2 * height)), min(column % (2 * width), ~column % (2 * width))
    elif borders == "border":
        row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    elif not (0 <= row < height and 0 <= column < width):
        return np.zeros(3)
    return image[row, column]


@pytest.mark.parametrize("borders", BORDERS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 53), (5, 2)])
def test_the_reference_warp_is_the_mean_of_bilinear_samples(height: int, width: int, borders: str) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    matrix = np.array([[0.9, 0.3, -0.4 * width], [-0.2, 1.1, 0.1 * height], [0.003, -0.002, 1]])
    size, spread = (12, 17), 0.7
    at = 0.5 + spread * np.array([-0.25, 0.25])  # k = 2
    samples = torch.tensor([2]), torch.tensor([spread], dtype=torch.float64)
    matrices = torch.from_numpy(matrix)[None]
    found = reference.warp([torch.from_numpy(image)], matrices, *samples, size, borders)
    for row, column in np.ndindex(*size):
        points = [matrix @ [column + u, row + v, 1] for u in at for v in at]
        by_hand = np.mean([bilinear_by_hand(image, x / w, y / w, borders) for x, y, w in points], axis=0)
        assert abs(found[0, row, column].numpy() - by_hand).max() < 1e-9


@pytest.mark.parametrize(
    ("shape", "by"), [((1, 1), (1, 1)), ((37, 53), (2, 3)), ((2000, 30), (7, 1)), ((64, 64), (64, 9))]
)
def test_shrink_is_the_rounded_mean_of_complete_blocks(shape: tuple[int, int], by: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = kernels.shrink(torch.from_numpy(image), *by)
    assert torch.equal(found, reference.shrink(torch.from_numpy(image), *by))
    assert found.shape == (shape[0] // by[0], shape[1] // by[1], 3)
    for row, column in np.ndindex(*found.shape[:2]):
        block = image[row * by[0] : (row + 1) * by[0], column * by[1] : (column + 1) * by[1]]
        assert (found[row, column].numpy() == np.round(block.mean((0, 1)))).all()


def test_shrink_by_2_equals_pillows_reduce_up_to_rounding() -> None:
    image = drawing(460, 301)
    found = kernels.shrink(torch.from_numpy(np.array(image)), 2, 2)
    pillow = np.array(image.reduce(2))[:, :150]  # Pillow keeps the incomplete block at the end
    assert (found.int() - torch.from_numpy(pillow).int()).abs().max() <= 1


VALID = {
    "images": [torch.zeros(4, 5, 3, dtype=torch.uint8)],
    "source_from_output": torch.eye(3)[None],
    "samples": torch.ones(1, dtype=torch.int32),
    "spread": torch.ones(1),
    "luts": torch.zeros(1, 3, 256),
    "out": torch.zeros(1, 2, 2, 3),
    "borders": "reflect",
}


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ({"images": [torch.zeros(4, 5, 3)]}, r"images\[0\]: torch.float32 \(4, 5, 3\), expected contiguous uint8"),
        ({"images": [torch.zeros(4, 5, 4, dtype=torch.uint8)]}, r"images\[0\]: .*\(4, 5, 4\)"),
        ({"images": [torch.zeros(4, 0, 3, dtype=torch.uint8)]}, r"images\[0\]: .*expected 1 to"),
        ({"images": [torch.zeros(5, 4, 3, dtype=torch.uint8).transpose(0, 1)]}, r"images\[0\]: .*not contiguous"),
        ({"images": VALID["images"] * 2}, r"source_from_output: .*expected contiguous torch.float32 \(2, 3, 3\)"),
        ({"source_from_output": torch.eye(3).double()[None]}, "source_from_output: torch.float64"),
        ({"samples": torch.ones(1)}, "samples: torch.float32"),
        ({"spread": torch.ones(2)}, r"spread: .*expected contiguous torch.float32 \(1,\)"),
        ({"luts": torch.zeros(1, 3, 256, dtype=torch.float16)}, "luts: torch.float16"),
        ({"out": torch.zeros(1, 3, 2, 2)}, r"out: .*expected contiguous torch.float32 \(1, 3, 2, 3\)"),
        ({"out": torch.zeros(1, 2, 2, 3).double(), "luts": torch.zeros(1, 3, 256).double()}, "out: torch.float64"),
        ({"images": [torch.zeros(2, 2, 3, dtype=torch.uint8, device="meta")]}, r"images\[0\]: on meta, expected cpu"),
        ({"samples": torch.ones(1, dtype=torch.int32, device="meta")}, "samples: on meta, expected the CPU"),
        ({"borders": "mirror"}, "borders: 'mirror', expected one of reflect, border, zeros"),
    ],
)
def test_invalid_shapes_types_and_borders_raise(invalid: dict, message: str) -> None:
    kernels.warp(**VALID)
    with pytest.raises(ValueError, match=message):
        kernels.warp(**{**VALID, **invalid})


def test_packed_images_index_and_slice_to_views_of_their_block() -> None:
    sizes = np.array([[3, 4], [5, 1], [2, 7]])
    block, starts = torch.arange(100, dtype=torch.uint8), np.array([0, 40, 57])
    packed = kernels.PackedImages(block, starts, sizes)
    assert [tuple(image.shape) for image in packed] == [(3, 4, 3), (5, 1, 3), (2, 7, 3)]
    assert torch.equal(packed[1].flatten(), block[40:55])
    assert [len(part) for part in (packed, packed[1:], packed[3:])] == [3, 2, 0]
    assert torch.equal(packed[1:][1], packed[2])
    addresses, found = addresses_and_sizes(packed)
    assert addresses.tolist() == [image.data_ptr() for image in packed]
    of_views = addresses_and_sizes(list(packed))
    assert all(np.array_equal(a, b) for a, b in zip(of_views, (addresses, found), strict=True))


@pytest.mark.parametrize(("start", "size"), [(59, (2, 7)), (-1, (2, 7)), (0, (0, 7))])
def test_packed_images_outside_their_block_or_without_pixels_raise(start: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="within a block of 100 bytes"):
        kernels.PackedImages(torch.zeros(100, dtype=torch.uint8), np.array([start]), np.array([size]))


def test_packed_images_and_their_views_warp_to_the_same_pixels() -> None:
    sizes = np.array([[30, 40], [55, 17]])
    block = torch.randint(0, 256, (3 * (30 * 40 + 55 * 17),), dtype=torch.uint8)
    packed = kernels.PackedImages(block, np.array([0, 3600]), sizes)
    geometry = torch.eye(3).repeat(2, 1, 1) * 1.3, torch.ones(2, dtype=torch.int32), torch.ones(2)
    luts = torch.rand(2, 3, 256)
    found, expected = torch.empty(2, 2, 16, 16, 3)
    kernels.warp(packed, *geometry, luts, found)
    kernels.warp(list(packed), *geometry, luts, expected)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lookup_tables_are_converted_as_torch_does(dtype: torch.dtype) -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    ties = (np.arange(2000, dtype=np.uint32) << 15).view(np.float32)  # between two numbers of bfloat16
    values = np.concatenate([bits[np.isfinite(bits) & (np.abs(bits) < 60_000)], ties, np.linspace(-3, 3, 10_001)])
    values = values.astype(np.float32)
    assert torch.equal(kernels.converted(values, dtype), torch.from_numpy(values).to(dtype))


def test_more_images_than_a_grid_has_blocks_are_refused_as_by_a_loader() -> None:
    assert kernels.MAX_BATCH == MAX_BATCH_SIZE
    too_many = VALID["images"] * (kernels.MAX_BATCH + 1)
    for function in (
        lambda: kernels.warp(**{**VALID, "images": too_many}),
        lambda: kernels.shrink_batch(too_many, None),
    ):
        with pytest.raises(ValueError, match=r"^images: 65536, expected at most 65535$"):
            function()


def test_a_batch_shrinks_as_its_images_do() -> None:
    images = [torch.from_numpy(np.array(drawing(*size))) for size in ((37, 53), (20, 30), (64, 9))]
    factors = np.array([[2, 3], [1, 1], [7, 4]])
    found = kernels.shrink_batch(images, factors)
    assert all(torch.equal(a, kernels.shrink(image, *by)) for a, image, by in zip(found, images, factors, strict=True))
    assert len(kernels.shrink_batch([], np.empty((0, 2), np.int64))) == 0

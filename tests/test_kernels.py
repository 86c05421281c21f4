"""The look-up equals its reference bit for bit, and the reference is what it says."""

import numpy as np
import pytest
import torch

from fastpets import kernels
from fastpets.kernels import reference


def pixels_and_tables(batch_size: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch_size)
    pixels = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.randn(batch_size, 3, 256, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("batch_size", "size"), [(1, 1), (1, 37), (3, 53), (64, 8)])
def test_the_look_up_equals_the_reference_bit_for_bit(batch_size: int, size: int, dtype: torch.dtype) -> None:
    pixels, tables = pixels_and_tables(batch_size, size)
    out = torch.empty(pixels.shape, dtype=dtype)
    images = kernels.look_up(pixels, tables, out)
    assert images.data_ptr() == out.data_ptr()
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, reference.look_up(pixels, tables.to(dtype)).permute(0, 3, 1, 2))


def test_the_reference_look_up_replaces_each_value_by_its_tables_entry() -> None:
    pixels, tables = pixels_and_tables(2, 5)
    found = reference.look_up(pixels, tables)
    for place in np.ndindex(2, 5, 5, 3):
        picture, _, _, channel = place
        assert found[place] == tables[picture, channel, int(pixels[place])]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pixels": torch.zeros(2, 4, 4, 3)}, "pixels: torch.float32"),
        ({"pixels": torch.zeros(2, 4, 4, 4, dtype=torch.uint8)}, r"pixels: .*\(2, 4, 4, 4\)"),
        ({"tables": torch.zeros(1, 3, 256)}, r"tables: .*expected float32 \(2, 3, 256\)"),
        ({"out": torch.zeros(2, 3, 4, 4)}, r"out: .*expected floats \(2, 4, 4, 3\)"),
        ({"out": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)}, r"out: torch.uint8"),
    ],
)
def test_other_shapes_and_types_are_refused(wrong: dict[str, torch.Tensor], message: str) -> None:
    right = {"pixels": torch.zeros(2, 4, 4, 3, dtype=torch.uint8), "tables": torch.zeros(2, 3, 256)}
    right["out"] = torch.zeros(2, 4, 4, 3)
    kernels.look_up(**right)
    with pytest.raises(ValueError, match=message):
        kernels.look_up(**{**right, **wrong})


def bilinear_by_hand(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """The value at a point, from the four pixels whose centres surround it, reflected about the picture's edges."""
    height, width = picture.shape[:2]

    def reflected(index: int, length: int) -> int:
        index %= 2 * length
        return index if index < length else 2 * length - 1 - index

    column, row = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    value = np.zeros(3)
    for dy, wy in ((0, row + 1.5 - y), (1, y - row - 0.5)):
        for dx, wx in ((0, column + 1.5 - x), (1, x - column - 0.5)):
            value += wx * wy * picture[reflected(row + dy, height), reflected(column + dx, width)]
    return value


@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 53), (5, 2)])
def test_the_reference_warp_is_bilinear_between_centres_with_reflected_borders(height: int, width: int) -> None:
    random = np.random.default_rng(height)
    picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    matrix = np.array([[0.9, 0.3, -0.4 * width], [-0.2, 1.1, 0.1 * height], [0.003, -0.002, 1]]) * [
        [1],
        [1],
        [1],
    ]
    warped = reference.warp([torch.from_numpy(picture)], torch.from_numpy(matrix)[None], 24)[0].numpy()
    for row, column in np.ndindex(24, 24):
        x, y, w = matrix @ [column + 0.5, row + 0.5, 1]
        # Half a step of rounding, and float64's on either way.
        assert abs(warped[row, column] - bilinear_by_hand(picture, x / w, y / w)).max() <= 0.5 + 1e-9

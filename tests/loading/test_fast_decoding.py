"""decode="fast": images that are shrunk differ little from the means of blocks, and all others not at all."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import ExifTags, Image

import fastpets
from fastpets import FastpetsError, InvalidArgumentError
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import from_folder
from fastpets.kernels import reference
from fastpets.loading.bad_files import UnusableImageError
from fastpets.loading.decoding import Scratch, load
from tests.epochs import pixels_by_id, same
from tests.images import drawing, encode

# In 13 real photos in 16 encodings, at their own size and enlarged up to 8 times, the lowest was 41.9 dB.
LOWEST_PSNR = 40


def make_loader(source: object, decode: str, **settings: object) -> fastpets.Loader:
    fixed = {"size": 16, "batch_size": 8, "augment": True, "drop_last": False, "device": "cpu", "decoder": "auto"}
    return fastpets.Loader(source, decode=decode, **(fixed | settings))  # type: ignore[arg-type]


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    error = np.mean((found.astype(float) - expected) ** 2)
    return 10 * math.log10(255**2 / max(error, 1e-9))


def load_as(mode: str, path: Path, size: tuple[int, int], factors: tuple[int, int]) -> np.ndarray:
    return load(str(path), size, factors, Scratch(), mode).copy()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def photos(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photos enlarged to sizes of which few are multiples of a factor, one for each EXIF orientation."""
    folder = tmp_path_factory.mktemp("photos")
    for orientation, path in enumerate(sorted(pets.glob("*.jpg"))[::40][:8], 1):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        with Image.open(path) as image:
            size = 3 * image.width + orientation, 3 * image.height + 2 * orientation
            enlarged = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        enlarged.save(folder / f"photo_{orientation}.jpg", quality=90, exif=exif, subsampling=orientation % 3)
    return folder


@pytest.mark.parametrize("factors", [(2, 2), (4, 4), (8, 8), (6, 6), (12, 8), (4, 2), (16, 24), (10, 2)])
def test_a_shrunk_photo_is_close_to_the_means_of_its_blocks(photos: Path, factors: tuple[int, int]) -> None:
    for path in sorted(photos.iterdir()):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        expected = reference.shrink(torch.from_numpy(pixels.copy()), *factors).numpy()
        found = load_as("fast", path, pixels.shape[:2], factors)
        assert found.shape == expected.shape
        assert psnr(found, expected) >= LOWEST_PSNR
        assert not np.array_equal(found, load_as("exact", path, pixels.shape[:2], factors))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_of_any_size_the_same_blocks_are_shrunk(scale: int, tmp_path: Path) -> None:
    """An image of constant rows, or columns, shows which of them each result was made of."""
    path = tmp_path / "image.jpg"
    for length in range(scale, 5 * scale):
        ramp = np.linspace(0, 255, length).round().astype(np.uint8)
        for axis, shape in enumerate([(length, 24, 3), (24, length, 3)]):
            pixels = np.broadcast_to(ramp.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)), shape)
            path.write_bytes(encode(pixels, "JPEG", quality=100, subsampling=0))
            found, expected = (load_as(mode, path, shape[:2], (scale, scale)) for mode in ("fast", "exact"))
            assert found.shape == expected.shape
            one_row = 255 / (length - 1)  # half a row, the smallest shift there is, changes half of that
            assert np.abs(found.astype(int) - expected).max() <= max(2, 0.4 * one_row)


@pytest.mark.parametrize("factors", [(1, 1), (3, 3), (3, 4), (2, 1), (5, 8)])
def test_without_a_common_even_factor_pixels_are_those_of_exact(factors: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    drawing(83, 101).save(path)
    assert np.array_equal(*(load_as(mode, path, (83, 101), factors) for mode in ("exact", "fast")))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "cmyk"])
def test_other_formats_have_the_pixels_of_exact(format: str, tmp_path: Path) -> None:
    image = drawing(83, 101)
    path = tmp_path / "image"
    path.write_bytes(encode(image.convert("CMYK"), "JPEG") if format == "cmyk" else encode(image, format))
    assert np.array_equal(*(load_as(mode, path, (83, 101), (4, 8)) for mode in ("exact", "fast")))


def test_a_damaged_jpeg_is_decoded_whole_by_pillow(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    content = encode(drawing(83, 101), "JPEG")
    damaged = content[:-2] + bytes(20) + content[-2:]  # too many bytes before its end
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(damaged)
    path.write_bytes(damaged)
    assert np.array_equal(*(load_as(mode, path, (83, 101), (4, 4)) for mode in ("exact", "fast")))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnusableImageError, match="not decoded by Pillow"):
        load_as("fast", path, (83, 101), (4, 4))
    with pytest.raises(UnusableImageError, match="101 x 83 px, expected 101 x 84"):
        load_as("fast", path, (84, 101), (4, 4))


def test_a_loader_delivers_images_that_are_not_shrunk_unchanged(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)  # of at most 96 x 94 px
    assert same(*(pixels_by_id(make_loader(folder, mode, size=32)) for mode in ("exact", "fast")))


def test_a_loader_delivers_shrunk_photos_that_differ_little(photos: Path) -> None:
    exact, fast = (pixels_by_id(make_loader(photos, mode, size=48, dtype="uint8")) for mode in ("exact", "fast"))
    assert not same(exact, fast)
    for i, image in exact.items():
        assert psnr(fast[i].numpy(), image.numpy()) >= LOWEST_PSNR


def test_cached_epochs_have_the_pixels_of_uncached_ones(sample: Path) -> None:
    dataset: ImageDataset = from_folder(sample).select(np.arange(0, 480, 10))  # all kinds of files, some of them shrunk
    cached, uncached = (make_loader(dataset, "fast", size=24, cache=where) for where in ("host", "none"))
    assert all(same(pixels_by_id(cached), pixels_by_id(uncached)) for _ in range(2))


def test_the_setting_passes_to_both_loaders_and_to_loaders_like_them(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    train, valid = fastpets.loaders(folder, 4, size=8, device="cpu", decoder="auto", decode="fast")
    assert [loader.decode for loader in (train, valid, train.like(folder), make_loader(folder, "exact"))] == [
        *["fast"] * 3, "exact",
    ]  # fmt: skip


def test_dali_and_other_names_are_rejected_in_one_line(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(2)
    with pytest.raises(InvalidArgumentError, match=r"^decode: 'fast', but DALI decodes whole images only"):
        make_loader(folder, "fast", decoder="dali")
    with pytest.raises(FastpetsError, match=r"^decode: 'quick', expected one of exact, fast$"):
        make_loader(folder, "quick")

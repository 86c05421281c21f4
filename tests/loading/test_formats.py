"""Every kind of file loads as Pillow shows it: upright, 8-bit RGB, first frame."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from fastpets import pipelines
from fastpets.augment.geometry import stored_from_upright
from fastpets.data.headers import DALI, PILLOW, Header, read_header
from fastpets.loading.bad_files import UnusableImageError
from fastpets.loading.dali_reading import read_encoded
from fastpets.loading.decoding import load_into
from tests.images import drawing, encode

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def late_exif(encoded: bytes) -> bytes:
    """A PNG with its eXIf chunk moved after the pixels, before IEND."""
    start = encoded.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(encoded[start : start + 4], "big")
    without = encoded[:start] + encoded[end:]
    return without[:-12] + encoded[start:end] + without[-12:]


def grey_16_bit() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 40 * 60, dtype=np.uint16).reshape(40, 60))


PHOTO = drawing(40, 60)
FRAMES = {"save_all": True, "append_images": [drawing(40, 60, seed=1)]}
FILES: dict[str, tuple[bytes, int]] = {
    "baseline": (encode(PHOTO, "JPEG"), DALI),
    "progressive": (encode(PHOTO, "JPEG", progressive=True), DALI),
    "444": (encode(PHOTO, "JPEG", subsampling=0), DALI),
    "422": (encode(PHOTO, "JPEG", subsampling=1), DALI),
    "420": (encode(PHOTO, "JPEG", subsampling=2), DALI),
    "grey jpeg": (encode(PHOTO.convert("L"), "JPEG"), DALI),
    "cmyk": (encode(PHOTO.convert("CMYK"), "JPEG"), DALI),
    "one pixel": (encode(PHOTO.crop((0, 0, 1, 1)), "JPEG"), DALI),
    "odd sides": (encode(PHOTO.crop((0, 0, 37, 23)), "JPEG", subsampling=2), DALI),
    "two images": (encode(PHOTO, "MPO", **FRAMES), DALI),
    "rgb png": (encode(PHOTO, "PNG"), DALI),
    "rgba png": (encode(PHOTO.convert("RGBA"), "PNG"), DALI),
    "grey alpha png": (encode(PHOTO.convert("LA"), "PNG"), DALI),
    "palette png": (encode(PHOTO.convert("P"), "PNG", transparency=3), DALI),
    "one-bit png": (encode(PHOTO.convert("1"), "PNG"), DALI),
    "16-bit png": (encode(grey_16_bit(), "PNG"), DALI),
    "animated png": (encode(PHOTO, "PNG", **FRAMES), DALI),
    "bmp": (encode(PHOTO, "BMP"), PILLOW),
    "webp": (encode(PHOTO, "WEBP"), DALI),
    "lossless webp": (encode(PHOTO, "WEBP", lossless=True), DALI),
    "lossless webp with exif": (encode(PHOTO, "WEBP", lossless=True, exif=turned(6)), DALI),
    "animated webp": (encode(PHOTO, "WEBP", **FRAMES), DALI),
    "late exif png": (late_exif(encode(PHOTO, "PNG", exif=turned(6))), DALI),
    "gif": (encode(PHOTO, "GIF"), PILLOW),
    "animated gif": (encode(PHOTO, "GIF", **FRAMES), PILLOW),
    "tiff": (encode(PHOTO, "TIFF"), PILLOW),
    **{f"tiff orientation {o}": (encode(PHOTO, "TIFF", exif=turned(o)), PILLOW) for o in (3, 6)},
    "jpeg 2000": (encode(PHOTO, "JPEG2000"), PILLOW),
    "ppm": (encode(PHOTO, "PPM"), PILLOW),
    "xmp orientation": (encode(PHOTO, "JPEG", xmp=XMP), DALI),
    **{f"jpeg exif {o}": (encode(PHOTO, "JPEG", exif=turned(o)), DALI) for o in range(1, 9)},
    **{f"png exif {o}": (encode(PHOTO, "PNG", exif=turned(o)), DALI) for o in (1, 2, 6)},
    **{f"webp exif {o}": (encode(PHOTO, "WEBP", exif=turned(o)), DALI) for o in (1, 3, 8)},
}


def as_pillow_shows_it(encoded: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if image.mode == "I;16":
        return np.repeat(np.round(np.asarray(image) / 257)[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGB"))


def by_dali(path: Path, header: Header) -> np.ndarray:
    """A file's pixels as they are stored, as the DALI engine reads and decodes them."""
    encoded = read_encoded(str(path), header.decoder, *stored_size(header))
    pipeline = pipelines.decoded_images(
        device="cpu", batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1
    )
    pipeline.build()
    pipeline.feed_input("encoded", [encoded])
    pipeline.schedule_run()
    return np.array(pipeline.share_outputs()[0].at(0))


def by_cpu(path: Path, header: Header) -> np.ndarray:
    """The same as the CPU engine reads and decodes them."""
    out = np.full((*stored_size(header), 3), 77, np.uint8)
    load_into(out, str(path))
    return out


def stored_size(header: Header) -> tuple[int, int]:
    return (header.width, header.height) if header.orientation >= 5 else (header.height, header.width)


def upright(stored: np.ndarray, header: Header) -> np.ndarray:
    """The image that the matrix of an orientation makes of the stored pixels."""
    matrix = stored_from_upright(header.orientation, header.height, header.width)
    y, x = np.indices((header.height, header.width)) + 0.5
    stored_x, stored_y, _ = np.floor(np.tensordot(matrix, np.stack([x, y, np.ones_like(x)]), 1)).astype(int)
    return stored[stored_y, stored_x]


@pytest.mark.parametrize("decode", [by_cpu, by_dali])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_any_kind_loads_as_pillow_shows_it(
    kind: str, decode: Callable[[Path, Header], np.ndarray], tmp_path: Path
) -> None:
    content, decoder = FILES[kind]
    path = tmp_path / "image_1.jpg"  # the name says nothing
    path.write_bytes(content)
    header = read_header(str(path))
    expected = as_pillow_shows_it(content)
    assert header[:3] == (decoder, *expected.shape[:2])
    assert np.array_equal(upright(decode(path, header), header), expected)


@pytest.mark.parametrize("decode", [by_cpu, by_dali])
def test_16_bit_images_that_pillow_decodes_are_scaled_not_clipped(decode: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    grey_16_bit().save(path)
    found = decode(path, read_header(str(path)))
    assert (found == np.round(np.asarray(grey_16_bit()) / 257)[..., None]).all()


@pytest.mark.parametrize("decode", [by_cpu, by_dali])
def test_very_wide_images_load(decode: Any, tmp_path: Path) -> None:
    path = tmp_path / "wide.jpg"
    drawing(30, 20_000).save(path)
    header = read_header(str(path))
    assert header == (DALI, 30, 20_000, 1, "")
    assert decode(path, header).shape == (30, 20_000, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "unreadable"),
        (lambda path: path.write_bytes(b""), "not decoded by Pillow"),
        (lambda path: path.write_bytes(encode(drawing(41, 60), "JPEG")), "60 x 41 px, expected 60 x 40"),
        (lambda path: path.write_bytes(encode(drawing(9, 9), "GIF")), "9 x 9 px, expected 60 x 40"),
        (lambda path: path.write_bytes(encode(drawing(60, 40), "JPEG")), "40 x 60 px, expected 60 x 40"),
    ],
)
@pytest.mark.parametrize("decode", [by_cpu, by_dali])
def test_a_file_that_changed_after_its_header_was_read_is_rejected(
    change: Any, message: str, decode: Any, tmp_path: Path
) -> None:
    path = tmp_path / "image.jpg"
    PHOTO.save(path)
    header = read_header(str(path))
    change(path)
    with pytest.raises(UnusableImageError, match=message):
        decode(path, header)

"""The range of images of more than 8 bits: which values are black and white, by mode and tags."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from fastpets.analysis.data_quality import narrow_ranges
from fastpets.cli import main
from fastpets.data.image import decode_rgb, full_range
from fastpets.data.sources import as_dataset

MIN, MAX, SIGNED_MIN, SIGNED_MAX = 280, 281, 340, 341


def tiff(values: np.ndarray, tags: dict[int, Any] | None = None, mode: str | None = None) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, value) in (tags or {}).items():
        info.tagtype[tag] = kind
        info[tag] = value
    file = io.BytesIO()
    image = Image.fromarray(values) if mode is None else Image.fromarray(values).convert(mode)
    image.save(file, "TIFF", tiffinfo=info)
    return file.getvalue()


def unsigned_32_bit(values: np.ndarray) -> bytes:
    """A TIFF of 32-bit unsigned integers, which Pillow reads but does not write: its SampleFormat is changed."""
    encoded = tiff(values.astype(np.int32))
    entry = (
        (339).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little") + (2).to_bytes(2, "little")
    )
    assert encoded.count(entry) == 1
    return encoded.replace(entry, entry[:-2] + (1).to_bytes(2, "little"))


SHORT, FLOAT = TiffImagePlugin.TiffTags.SHORT, TiffImagePlugin.TiffTags.FLOAT
RAMP = np.linspace(0, 1, 600).reshape(20, 30)
FILES: dict[str, tuple[bytes, tuple[float, float]]] = {
    "16 bits": (tiff((RAMP * 65535).astype(np.uint16)), (0, 65535)),
    "12 bits by their maximum": (tiff((RAMP * 4095).astype(np.uint16), {MAX: (SHORT, 4095)}), (0, 4095)),
    "minimum and maximum": (
        tiff((1000 + RAMP * 2000).astype(np.uint16), {MIN: (SHORT, 1000), MAX: (SHORT, 3000)}),
        (1000, 3000),
    ),
    "maximum below the minimum": (
        tiff((RAMP * 65535).astype(np.uint16), {MIN: (SHORT, 9), MAX: (SHORT, 3)}),
        (0, 65535),
    ),
    "32 bits, signed": (tiff((RAMP * (2**31 - 1)).astype(np.int32)), (0, 2**31 - 1)),
    "32 bits, unsigned": (unsigned_32_bit((RAMP * (2**31 - 1)).astype(np.int32)), (0, 2**32 - 1)),
    "floating point": (tiff(RAMP.astype(np.float32)), (0, 1)),
    "floating point with a range": (
        tiff((RAMP * 40 - 10).astype(np.float32), {SIGNED_MIN: (FLOAT, -10.0), SIGNED_MAX: (FLOAT, 30.0)}),
        (-10, 30),
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_values_are_scaled_from_black_to_white(kind: str) -> None:
    encoded, (black, white) = FILES[kind]
    image = Image.open(io.BytesIO(encoded))
    assert full_range(image) == (black, white)
    stored = np.asarray(image).astype(np.float64)  # Pillow's signed numbers suffice for these
    expected = (stored - black) / (white - black) * 255
    found = np.asarray(decode_rgb(encoded)).astype(np.float64)
    assert (np.ptp(found, axis=-1) == 0).all()
    assert np.abs(found[..., 0] - expected).max() <= 0.5 + 1e-9
    assert found.min() == 0
    assert found.max() == (127 if kind == "32 bits, unsigned" else 255)


def test_numbers_that_are_none_and_values_beyond_the_range_are_clipped() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -3, 0.5, 7]], np.float32)
    assert np.asarray(decode_rgb(tiff(values)))[0, :, 0].tolist() == [0, 255, 0, 0, 128, 255]


def test_a_16_bit_grey_image_is_scaled_by_257() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for encoded in (tiff(values), png(values)):
        assert (np.asarray(decode_rgb(encoded))[..., 0] == np.round(values / 257)).all()


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def test_check_and_summary_name_images_that_use_a_small_part_of_their_range(
    make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(12)
    dark = (RAMP * 255).astype(np.uint16)
    (folder / "kind0_100.png").write_bytes(png(dark))
    (folder / "kind1_101.tif").write_bytes(tiff((65535 - dark).astype(np.uint16)))
    (folder / "kind1_102.png").write_bytes(png(dark * 257))
    (folder / "kind1_103.png").write_bytes(png(np.full((20, 30), 32768, np.uint16)))
    found = narrow_ranges(as_dataset(folder).scanned(1))
    assert {Path(path).name: problem for path, problem in found.items()} == {
        "kind0_100.png": "values 0 to 255 of 0 to 65535: will look black",
        "kind1_101.tif": "values 65280 to 65535 of 0 to 65535: will look white",
        "kind1_103.png": "values 32768 to 32768 of 0 to 65535: will look almost uniform",
    }
    assert main(["check", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"warning: {folder}/kind0_100.png: values 0 to 255 of 0 to 65535: will look black\n" in printed
    assert "16 files: 16 good, 0 bad" in printed
    assert main(["summary", str(folder)]) == 0
    assert "images that use a small part of their range (3):" in capsys.readouterr().out

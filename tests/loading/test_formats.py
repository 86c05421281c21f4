"""Every kind of file loads as Pillow shows it: upright, 8-bit RGB, first frame."""

import contextlib
import io
import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, features

from fastpets import pipelines
from fastpets.augment.geometry import stored_from_upright
from fastpets.data import storage
from fastpets.data.headers import DALI, DEEP, PILLOW, Header, read_header
from fastpets.loading.bad_files import UnusableImageError
from fastpets.loading.dali_reading import read_encoded
from fastpets.loading.decoding import Scratch, load
from tests.images import drawing, encode

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def late(kind: bytes, encoded: bytes) -> bytes:
    """A PNG with its first chunk of a kind moved after the pixels, before IEND."""
    start = encoded.index(kind) - 4
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
    "cmyk": (encode(PHOTO.convert("CMYK"), "JPEG"), PILLOW),
    "one pixel": (encode(PHOTO.crop((0, 0, 1, 1)), "JPEG"), DALI),
    "odd sides": (encode(PHOTO.crop((0, 0, 37, 23)), "JPEG", subsampling=2), DALI),
    "two images": (encode(PHOTO, "MPO", **FRAMES), DALI),
    "rgb png": (encode(PHOTO, "PNG"), DALI),
    "rgba png": (encode(PHOTO.convert("RGBA"), "PNG"), DALI),
    "grey alpha png": (encode(PHOTO.convert("LA"), "PNG"), DALI),
    "palette png": (encode(PHOTO.convert("P"), "PNG", transparency=3), DALI),
    "one-bit png": (encode(PHOTO.convert("1"), "PNG"), DALI),
    "16-bit png": (encode(grey_16_bit(), "PNG"), DEEP),
    "animated png": (encode(PHOTO, "PNG", **FRAMES), DALI),
    "bmp": (encode(PHOTO, "BMP"), PILLOW),
    "webp": (encode(PHOTO, "WEBP"), DALI),
    "lossless webp": (encode(PHOTO, "WEBP", lossless=True), DALI),
    "lossless webp with exif": (encode(PHOTO, "WEBP", lossless=True, exif=turned(6)), DALI),
    "animated webp": (encode(PHOTO, "WEBP", **FRAMES), DALI),
    "late exif png": (late(b"eXIf", encode(PHOTO, "PNG", exif=turned(6))), DALI),
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


def written_by_pillow() -> dict[str, bytes]:
    """A file of each format and mode that Pillow writes and reads, and of each TIFF compression."""
    Image.init()
    modes = {
        mode: PHOTO.convert(mode)
        for mode in ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F"]
    }
    modes |= {"PA": modes["RGBA"].convert("P").convert("PA"), "La": modes["LA"].convert("La")}
    modes |= {"RGBa": modes["RGBA"].convert("RGBa"), "I;16": grey_16_bit(), "I;16B": modes["I"].convert("I;16B")}
    options: list[tuple[str, dict[str, object]]] = [(name, {}) for name in sorted(Image.SAVE)]
    compressions = ["tiff_lzw", "tiff_adobe_deflate", "packbits", "group3", "group4", "jpeg", "lzma", "zstd", "webp"]
    options += [("TIFF", {"compression": compression}) for compression in compressions]
    found = {}
    for (name, settings), (mode, image) in itertools.product(options, modes.items()):
        with contextlib.suppress(Exception):  # not written, or not read, in this mode
            encoded = encode(image, name, **settings)
            Image.open(io.BytesIO(encoded)).convert("RGB")
            found[" ".join([name, *map(str, settings.values()), mode])] = encoded
    return found


def png(color_type: int, bits: int, transparency: bytes | None) -> bytes:
    """A PNG of random values, written by hand: Pillow does not write all types and depths."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    random = np.random.default_rng(bits)
    rows = random.integers(0, 256, (20, 1 + (30 * channels * bits + 7) // 8), np.uint8)
    rows[:, 0] = 0  # no filter
    palette = random.integers(0, 256, 3 * 2 ** min(bits, 8), np.uint8).tobytes() if color_type == 3 else None
    header = struct.pack(">IIBBBBB", 30, 20, bits, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", transparency), (b"IDAT", zlib.compress(rows.tobytes()))]
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c))
             for kind, c in [*chunks, (b"IEND", b"")] if c is not None]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
TRANSPARENCIES = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\0\x80"}
PNGS = {
    f"png type {color_type}, {bits} bits{', tRNS' * (transparency is not None)}": png(color_type, bits, transparency)
    for color_type, depths in DEPTHS.items()
    for bits in depths
    for transparency in {None, TRANSPARENCIES.get(color_type)}
}


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """A JPEG without its first segment with a marker."""
    start = jpeg.index(bytes([0xFF, marker]))
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG with another segment, the first one."""
    return jpeg[:2] + bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content + jpeg[2:]


def exif(entry: bytes) -> bytes:
    """An EXIF block with one entry of its first directory."""
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"


def inverted(image: Image.Image) -> Image.Image:
    return Image.fromarray(255 - np.asarray(image), image.mode)


PLAIN = encode(PHOTO, "JPEG")
CMYK = encode(PHOTO.convert("CMYK"), "JPEG")
EXIF_6, EXIF_3 = (turned(orientation).tobytes() for orientation in (6, 3))
RAW_PROFILE = f"\nexif\n{len(EXIF_6):8}\n{EXIF_6.hex()}\n"


def png_with_text(key: str, text: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, text)
    return encode(PHOTO, "PNG", pnginfo=info)


# Files in which metadata is damaged, doubled, of another type or in another place.
METADATA = {
    "cmyk without Adobe's marker": without_segment(CMYK, 0xEE),
    "cmyk inverted": encode(inverted(PHOTO.convert("CMYK")), "JPEG"),
    "cmyk inverted without Adobe's marker": without_segment(encode(inverted(PHOTO.convert("CMYK")), "JPEG"), 0xEE),
    "ycbcr without JFIF": without_segment(PLAIN, 0xE0),
    "rgb with Adobe's marker": with_segment(PLAIN, 0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    "two EXIF blocks that disagree": with_segment(with_segment(PLAIN, 0xE1, EXIF_3), 0xE1, EXIF_6),
    "doubled EXIF prefix": with_segment(PLAIN, 0xE1, b"Exif\0\0" + EXIF_6),
    "orientation as a long": with_segment(PLAIN, 0xE1, exif(b"\x12\1\4\0\1\0\0\0\6\0\0\0")),
    "orientation as text": with_segment(PLAIN, 0xE1, exif(b"\x12\1\2\0\2\0\0\x006\0\0\0")),
    "orientation beyond its block": with_segment(PLAIN, 0xE1, exif(b"\x12\1\3\0\x09\0\0\0\xff\0\0\0")),
    "orientation as a fraction": with_segment(PLAIN, 0xE1, exif(b"\x12\1\5\0\1\0\0\0\x08\0\0\0")),
    "two orientations": with_segment(PLAIN, 0xE1, exif(b"\x12\1\3\0\2\0\0\0\6\0\3\0")),
    "orientation 0": with_segment(PLAIN, 0xE1, exif(b"\x12\1\3\0\1\0\0\0\0\0\0\0")),
    "orientation 9": with_segment(PLAIN, 0xE1, exif(b"\x12\1\3\0\1\0\0\0\x09\0\0\0")),
    "EXIF of random bytes": with_segment(PLAIN, 0xE1, b"Exif\0\0" + np.random.default_rng(1).bytes(200)),
    "EXIF cut off": with_segment(PLAIN, 0xE1, EXIF_6[:-9]),
    "EXIF after the image": PLAIN[:-2] + with_segment(b"\xff\xd8", 0xE1, EXIF_6)[2:] + PLAIN[-2:],
    "ICC profile of random bytes": with_segment(PLAIN, 0xE2, b"ICC_PROFILE\0\1\1" + bytes(99)),
    "broken XMP": encode(PHOTO, "JPEG", xmp=XMP[:-20]),
    "XMP and EXIF that disagree": encode(PHOTO, "JPEG", xmp=XMP, exif=turned(3)),
    "png with XMP": png_with_text("XML:com.adobe.xmp", XMP.decode()),
    "png with late XMP": late(b"iTXt", png_with_text("XML:com.adobe.xmp", XMP.decode())),
    "png with another text": png_with_text("Comment", "Orientation 6"),
    "png with a late raw profile": late(b"iTXt", png_with_text("Raw profile type exif", RAW_PROFILE)),
    "png with a raw profile": png_with_text("Raw profile type exif", RAW_PROFILE),
    "png with a broken raw profile": png_with_text("Raw profile type exif", RAW_PROFILE[:40]),
    "webp with XMP": encode(PHOTO, "WEBP", xmp=XMP),
    "webp with broken EXIF": encode(PHOTO, "WEBP", exif=EXIF_6[:-9]),
    "two images, turned": encode(PHOTO, "MPO", exif=turned(6), **FRAMES),
    "restart markers": encode(PHOTO, "JPEG", restart_marker_blocks=2),
    **{f"tiff exif {o}": encode(PHOTO, "TIFF", exif=turned(o)) for o in range(1, 9)},
    **{f"png exif {o}": encode(PHOTO, "PNG", exif=turned(o)) for o in range(1, 9)},
    **{f"webp exif {o}": encode(PHOTO, "WEBP", exif=turned(o)) for o in range(1, 9)},
    **(
        {f"avif exif {o}": encode(PHOTO, "AVIF", exif=turned(o)) for o in range(1, 9)} if features.check("avif") else {}
    ),
}


def as_pillow_shows_it(encoded: bytes) -> np.ndarray:
    """Pillow's pixels. Its conversion clips values of more than 8 bits, for which the white that is meant is given."""
    white = {"I;16": 65535, "I;16B": 65535, "I": 65535, "F": 1}
    opened = Image.open(io.BytesIO(encoded))
    if opened.format == "TIFF":
        white["I"] = 2**31 - 1
    try:
        image = ImageOps.exif_transpose(opened)
    except ValueError:  # unreadable metadata
        image = opened
    if image.mode in white:
        grey = np.floor(np.asarray(image, np.float64) / white[image.mode] * 255 + 0.5).clip(0, 255)
        return np.repeat(grey[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGB"))


def by_dali(path: Path, header: Header) -> np.ndarray:
    """A file's pixels as they are stored, as the DALI engine reads and decodes them."""
    read = storage.BlockReader(lambda num_bytes: np.full(num_bytes, 77, np.uint8), 1000).read
    encoded = read_encoded(str(path), header.decoder, *stored_size(header), read)
    pipeline = pipelines.decoded_images(
        device="cpu", batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1
    )
    pipeline.build()
    pipeline.feed_input("encoded", [encoded])
    pipeline.schedule_run()
    return np.array(pipeline.share_outputs()[0].at(0))


def by_cpu(path: Path, header: Header) -> np.ndarray:
    """The same as the CPU engine reads and decodes them."""
    return load(str(path), stored_size(header), (1, 1), Scratch(), "exact")


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


@pytest.mark.parametrize("decode", [by_cpu, pytest.param(by_dali, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "files", [PNGS, METADATA, pytest.param(None, id="written by Pillow")], ids=["png", "metadata", "all"]
)
def test_files_of_all_formats_modes_and_metadata_load_as_pillow_shows_them(
    files: dict[str, bytes] | None, decode: Callable[[Path, Header], np.ndarray], tmp_path: Path
) -> None:
    path, wrong = tmp_path / "image_1.jpg", []
    for kind, content in (written_by_pillow() if files is None else files).items():
        path.write_bytes(content)
        header = read_header(str(path))
        expected = as_pillow_shows_it(content)
        if header.problem:
            wrong.append(f"{kind}: {header.problem}")
        elif not np.array_equal(found := upright(decode(path, header), header), expected):
            wrong.append(f"{kind}: {found.shape}, {expected.shape}, {header}")
    assert not wrong, "\n".join(wrong)


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

"""Fuzzes the metadata of images: `python -m tests.fuzz_metadata --files 10000`.

EXIF, XMP, ICC profiles and the ancillary chunks of PNG and WebP files are damaged: bits are flipped, bytes removed,
inserted or replaced, blocks doubled or exchanged with those of another file. Every file must have Pillow's pixels, or
be named as bad where Pillow does not decode it. An image whose orientation Pillow cannot read is taken as upright.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from fastpets.data.headers import read_header
from fastpets.loading.bad_files import UnusableImageError
from tests.images import drawing, encode
from tests.loading.test_formats import XMP, by_cpu, by_dali, upright

MARKERS = (0xE1, 0xE2, 0xEE, 0xFE)  # JPEG segments: EXIF and XMP, ICC, Adobe, comments
CHUNKS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt", b"iCCP", b"gAMA", b"EXIF", b"XMP ", b"ICCP")  # of PNG and WebP


def originals() -> list[bytes]:
    """Small images with metadata of all kinds."""
    image, exif = drawing(24, 36), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n", zip=True)
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return [
        encode(image, "JPEG", exif=exif, xmp=XMP, icc_profile=icc, comment=b"a comment"),
        encode(image.convert("CMYK"), "JPEG", exif=exif),
        encode(image.convert("L"), "JPEG", exif=exif, progressive=True),
        encode(image, "PNG", exif=exif, icc_profile=icc),
        encode(image, "PNG", pnginfo=text),
        encode(image, "WEBP", exif=exif, xmp=XMP, icc_profile=icc),
        encode(image, "TIFF", exif=exif),
    ]


def blocks(content: bytes) -> list[slice]:
    """Where the metadata are in a file: JPEG segments, chunks, or the whole directory of a TIFF."""
    if content.startswith(b"\xff\xd8"):
        found, at = [], 2
        while content[at] == 0xFF and content[at + 1] != 0xDA:
            end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
            if content[at + 1] in MARKERS:
                found.append(slice(at, end))
            at = end
        return found
    if content.startswith(b"II"):
        return [slice(int.from_bytes(content[4:8], "little"), len(content))]
    found = []
    for kind in CHUNKS:
        if (at := content.find(kind)) >= 0:
            is_png = content.startswith(b"\x89PNG")
            length = content[at - 4 : at] if is_png else content[at + 4 : at + 8]
            size = int.from_bytes(length, "big" if is_png else "little")
            found.append(slice(at - 4, at + 8 + size) if is_png else slice(at, at + 8 + size))
    return found


def damaged(random: np.random.Generator, files: list[bytes]) -> bytes:
    """One of the files with damaged metadata."""
    content = files[random.integers(len(files))]
    places = blocks(content)
    place = places[random.integers(len(places))]
    block = bytearray(content[place])
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(len(block) + 1))
        match random.integers(6):
            case 0:
                for each in random.integers(0, max(len(block), 1), random.integers(1, 9)):
                    if each < len(block):
                        block[each] ^= 1 << random.integers(8)
            case 1:
                del block[at : at + int(random.integers(1, 20))]
            case 2:
                block[at:at] = random.bytes(int(random.integers(1, 40)))
            case 3:
                block[at : at + 4] = random.choice([0, 1, 0x7F, 0xFF]).astype(np.uint8).tobytes() * 4
            case 4:
                block.extend(bytes(block))
            case 5:
                other = files[random.integers(len(files))]
                block[4:] = other[blocks(other)[0]][4:]
    if random.random() < 0.8:
        block = repaired(content, block)
    return content[: place.start] + bytes(block) + content[place.stop :]


def repaired(content: bytes, block: bytearray) -> bytearray:
    """A damaged block of a file with a right length, and checksum, so that what it holds is read."""
    block = bytearray(block)
    if content.startswith(b"\xff\xd8") and len(block) >= 4:
        block[2:4] = (len(block) - 2).to_bytes(2, "big")
    elif content.startswith(b"\x89PNG") and len(block) >= 12:
        block[:4] = (len(block) - 12).to_bytes(4, "big")
        block[-4:] = zlib.crc32(block[4:-4]).to_bytes(4, "big")
    elif content.startswith(b"RIFF") and len(block) >= 8:
        block += b"\0" * (len(block) % 2)
        block[4:8] = (len(block) - 8).to_bytes(4, "little")
    return block


def by_pillow(content: bytes) -> np.ndarray | None:
    """Pillow's pixels, or None if it does not decode the file."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except Exception:  # Pillow's plugins raise anything on damaged bytes
        return None
    pixels, orientation = image.convert("RGB"), 1
    with contextlib.suppress(Exception):  # unreadable metadata
        orientation = 1 if image.format == "TIFF" else image.getexif().get(0x0112, 1)
    # exif_transpose of the original would also write its metadata anew, which fails on more damage.
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        exif[0x0112] = orientation
        pixels.info = {"exif": exif.tobytes()}
        pixels = ImageOps.exif_transpose(pixels)
    return np.asarray(pixels)


def problem_of(path: Path, content: bytes, decode: object) -> str | None:
    """What is wrong with how a file is loaded; None if it is as Pillow shows it, or if neither loads it."""
    expected, header = by_pillow(content), read_header(str(path))
    if header.problem:
        return None if expected is None else f"bad header ({header.problem}), but Pillow decodes it"
    try:
        stored = decode(path, header)  # type: ignore[operator]
    except UnusableImageError as error:
        return None if expected is None else f"{error}, but Pillow decodes it"
    except RuntimeError:  # DALI's: its engine then decodes with Pillow
        return None
    if expected is None:
        return "decoded, but not by Pillow"
    found = upright(stored, header)
    return None if np.array_equal(found, expected) else f"other pixels: {found.shape}, {expected.shape}, {header}"


def fuzz(num_files: int, seed: int) -> int:
    """Loads damaged files with both engines, and returns how many Pillow does not decode. Raises AssertionError."""
    random, files, num_bad = np.random.default_rng(seed), originals(), 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "image.jpg")
        for number in range(num_files):
            content = damaged(random, files)
            path.write_bytes(content)
            engines = (by_cpu, by_dali) if number % 10 == 0 else (by_cpu,)
            for decode in engines:
                if problem := problem_of(path, content, decode):
                    Path("fuzz-failed.bin").write_bytes(content)
                    raise AssertionError(f"file {number} of seed {seed}, by {decode.__name__}: {problem}")
            num_bad += by_pillow(content) is None
    return num_bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    num_bad = fuzz(arguments.files, arguments.seed)
    print(
        f"{arguments.files} files, {num_bad} not decoded by Pillow; {time.monotonic() - started:.0f} s; all as Pillow's"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

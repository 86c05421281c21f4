"""The manifest: what the files' headers say, read once and kept in the user's cache folder.

It sorts the pictures into those that DALI decodes, those that Pillow decodes for it, and those that cannot be used.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastpets.config import MAX_PIXELS
from fastpets.console import track
from fastpets.items import Items
from fastpets.system import cache_dir

VERSION = 1  # goes into the name of the cached file: raise it when a fact or its meaning changes
DALI_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
ORIENTATION = 0x0112
SWAPS_SIDES = (5, 6, 7, 8)  # the EXIF orientations that turn a picture by a quarter

BAD, DALI, PILLOW = range(3)


class Facts(NamedTuple):
    """What one header says: which decoder (BAD, DALI, PILLOW), the upright size in pixels, what is wrong if BAD."""

    kind: int
    height: int
    width: int
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Manifest:
    """Facts in the order of the paths: (N,) uint8 kinds, (N,) int32 upright heights and widths in pixels.

    `problems` maps the path of each BAD one to what is wrong with it.
    """

    kinds: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    problems: dict[str, str]

    @property
    def usable(self) -> np.ndarray:
        """The ids of the pictures that are not BAD."""
        return np.flatnonzero(self.kinds != BAD)

    def select_usable(self) -> "Manifest":
        """The facts on those alone."""
        ids = self.usable
        return Manifest(self.kinds[ids], self.heights[ids], self.widths[ids], {})


def scan(items: Items, num_workers: int, max_pixels: int = MAX_PIXELS) -> Manifest:
    """Facts on every item, from the cache where size and time of change are the same as when it was read.

    Pictures of more than `max_pixels` are BAD.
    """
    paths = items.paths
    cached = _load(items.root)
    stamps = [_stamp(path) for path in paths]
    facts = [cached[path][1] if path in cached and cached[path][0] == stamp else None
             for path, stamp in zip(paths, stamps, strict=True)]  # fmt: skip
    missing = [index for index, fact in enumerate(facts) if fact is None]
    with ThreadPoolExecutor(num_workers) as pool:
        found = pool.map(read_header, [paths[index] for index in missing])
        for index, fact in zip(missing, track(found, "reading headers", len(missing)), strict=True):
            facts[index] = fact
            cached[paths[index]] = (stamps[index], fact)
    if missing:
        _save(items.root, cached)
    known = [_limited(fact, max_pixels) for fact in facts if fact is not None]
    return Manifest(
        np.array([fact.kind for fact in known], np.uint8),
        np.array([fact.height for fact in known], np.int32),
        np.array([fact.width for fact in known], np.int32),
        {path: fact.problem for path, fact in zip(paths, known, strict=True) if fact.kind == BAD},
    )


def _limited(facts: Facts, max_pixels: int) -> Facts:
    if facts.height * facts.width <= max_pixels:
        return facts
    size = f"{facts.width:,} x {facts.height:,} px"
    return Facts(BAD, 0, 0, f"{size}, expected at most {max_pixels:,} pixels; shrink it, or raise max_pixels")


def read_header(path: str) -> Facts:
    """Facts on one file, from its header alone."""
    try:
        if os.path.getsize(path) == 0:
            return Facts(BAD, 0, 0, "0 bytes, expected a picture")
        with Image.open(path) as picture:
            width, height = picture.size
            orientation, seen_by_dali = _orientation(picture, path)
            kind = DALI if picture.format in DALI_FORMATS and seen_by_dali else PILLOW
    except UnidentifiedImageError:
        return Facts(BAD, 0, 0, f"{_start(path)}, expected a picture")
    except Image.DecompressionBombError as error:
        return Facts(BAD, 0, 0, str(error))
    except OSError as error:
        return Facts(BAD, 0, 0, f"unreadable ({error.strerror or error})")
    except Exception as error:  # Pillow's readers meet any bytes, and fail in any way
        return Facts(BAD, 0, 0, f"damaged header ({type(error).__name__}: {error})")
    return Facts(kind, width, height) if orientation in SWAPS_SIDES else Facts(kind, height, width)


def _orientation(picture: Image.Image, path: str) -> tuple[int, bool]:
    """A picture's orientation (1-8) as Pillow finds it, and whether DALI finds the same."""
    if picture.format == "PNG" and "exif" not in picture.info and not _png_has_late_exif(path):
        return 1, True  # else getexif decodes the whole picture in search of it
    orientation = picture.getexif().get(ORIENTATION, 1)
    in_exif = Image.Exif()  # Pillow looks into XMP and TIFF tags as well
    in_exif.load(picture.info.get("exif", b""))
    return orientation, in_exif.get(ORIENTATION, 1) == orientation


def _png_has_late_exif(path: str) -> bool:
    """Whether a PNG has an eXIf chunk behind its pixels (PNG 3rd edition, 5.3: length, type, content, check sum)."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def _start(path: str) -> str:
    """How a file begins that is no picture, for a person to recognise it."""
    with open(path, "rb") as file:
        return f"begins with {file.read(12)!r}"


def _stamp(path: str) -> str:
    """Size and time of change, which differ when a file is replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _file(root: str) -> Path:
    folder = cache_dir() / "manifests"
    folder.mkdir(exist_ok=True)
    return folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:24]}-v{VERSION}.json"


def _load(root: str) -> dict[str, tuple[str, Facts]]:
    """The cached facts by path, each with its stamp."""
    try:
        rows = json.loads(_file(root).read_text())
        return {path: (stamp, Facts(kind, height, width)) for path, stamp, kind, height, width in rows}
    except (OSError, ValueError, TypeError):
        return {}  # not there yet, or not whole: read the headers again


def _save(root: str, facts: dict[str, tuple[str, Facts]]) -> None:
    """Writes the facts beside their place and moves them in whole; BAD ones are left out, so that a mend shows."""
    rows = [[path, stamp, fact.kind, fact.height, fact.width]
            for path, (stamp, fact) in facts.items() if fact.kind != BAD]  # fmt: skip
    with contextlib.suppress(OSError):  # without a cache the next start takes a little longer, no more
        target = _file(root)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
            json.dump(rows, file)
        os.replace(file.name, target)

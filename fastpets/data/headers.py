"""The headers: what the files' headers say, read once and kept in the user's cache folder.

It sorts the images into those that DALI decodes, those that Pillow decodes for it, and those that cannot be used.
"""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastpets.augment.preprocessing import MAX_PIXELS
from fastpets.data import storage
from fastpets.data.dataset import ImageDataset
from fastpets.utils.progress import track
from fastpets.utils.system import cache_dir

VERSION = 2  # goes into the name of the cached file: raise it when a fact or its meaning changes
DALI_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
ORIENTATION = 0x0112
SWAPS_SIDES = (5, 6, 7, 8)  # the EXIF orientations that turn an image by a quarter

BAD, DALI, PILLOW = range(3)
TRUSTED = 1_000_000  # items: to ask the system for the times of more files takes longer than seconds
# A row of the cached table: which file as it was when, and the first three of its facts.
FACTS = np.dtype([("key", np.uint64), ("kind", np.uint8), ("height", np.int32), ("width", np.int32)])


class Facts(NamedTuple):
    """What one header says: which decoder (BAD, DALI, PILLOW), the upright size in pixels, what is wrong if BAD."""

    kind: int
    height: int
    width: int
    problem: str = ""


@dataclass(frozen=True, eq=False)
class ImageHeaders:
    """Facts in the order of the paths: (N,) uint8 decoders, (N,) int32 upright heights and widths in pixels.

    `problems` maps the path of each BAD one to what is wrong with it.
    """

    decoders: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    problems: dict[str, str]

    @property
    def usable(self) -> np.ndarray:
        """Which images (N,) bool are not BAD."""
        return self.decoders != BAD

    def select_usable(self) -> "ImageHeaders":
        """The facts on those alone."""
        ids = np.flatnonzero(self.usable)
        return ImageHeaders(self.decoders[ids], self.heights[ids], self.widths[ids], {})


def scan(dataset: ImageDataset, num_workers: int, max_pixels: int = MAX_PIXELS) -> ImageHeaders:
    """Facts on every item, from the cache where size and time of change are the same as when it was read.

    Images of more than `max_pixels` are BAD. Of a set of more than TRUSTED items the cache is believed without a look
    at the files: one that changed is found out when it is read.
    """
    paths = dataset.paths
    cached = _load(dataset.root)
    facts = np.zeros(len(paths), FACTS)
    with ThreadPoolExecutor(num_workers) as pool:
        facts["key"] = paths.hashes()
        if len(paths) <= TRUSTED:
            facts["key"] += np.fromiter(map(_bits, storage.stamps(paths, pool)), np.uint64, len(paths))
        places, by_key = np.empty(len(paths), np.int64), np.argsort(facts["key"])  # in order is 15 times as fast
        places[by_key] = np.searchsorted(cached["key"], facts["key"][by_key]).clip(max=max(0, len(cached) - 1))
        found = cached["key"][places] == facts["key"] if len(cached) else np.zeros(len(paths), bool)
        facts[found] = cached[places[found]]
        missing = np.flatnonzero(~found)
        problems: dict[str, str] = {}
        for i, fact in track(_headers(paths, missing, pool), "reading headers", len(missing)):
            facts[i] = (facts["key"][i], *fact[:3])
            if fact.kind == BAD:
                problems[paths[i]] = fact.problem
    if len(missing):
        _save(dataset.root, np.concatenate([cached, facts[missing]]))
    large = facts["height"].astype(np.int64) * facts["width"] > max_pixels
    for i in np.flatnonzero(large).tolist():
        size = f"{facts['width'][i]:,} x {facts['height'][i]:,} px"
        problems[paths[i]] = f"{size}, expected at most {max_pixels:,} pixels; shrink it, or raise max_pixels"
    facts["kind"][large] = BAD
    return ImageHeaders(facts["kind"].copy(), facts["height"].copy(), facts["width"].copy(), problems)


def _headers(paths: Sequence[str], ids: np.ndarray, pool: Executor) -> Iterator[tuple[int, Facts]]:
    """The facts of each of the items, read in parallel."""
    for start in range(0, len(ids), 4096):  # a future each: not millions of them at once
        some = ids[start : start + 4096].tolist()
        yield from zip(some, pool.map(read_header, [paths[i] for i in some]), strict=True)


def read_header(path: str) -> Facts:
    """Facts on one file, from its header alone if it lies on a disk."""
    try:
        is_local = not (storage.is_remote(path) or storage.MEMBER.fullmatch(path))
        content = None if is_local else storage.read(path)
        if (os.path.getsize(path) if content is None else len(content)) == 0:
            return Facts(BAD, 0, 0, "0 bytes, expected an image")
        with open(path, "rb") if content is None else io.BytesIO(content) as file:
            return _facts(file)
    except Image.DecompressionBombError as error:
        return Facts(BAD, 0, 0, str(error))
    except OSError as error:
        return Facts(BAD, 0, 0, f"unreadable ({error.strerror or error})")
    except Exception as error:  # Pillow's readers meet any bytes, and fail in any way
        return Facts(BAD, 0, 0, f"damaged header ({type(error).__name__}: {error})")


def _facts(file: IO[bytes]) -> Facts:
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        return Facts(BAD, 0, 0, f"begins with {file.read(12)!r}, expected an image")
    width, height = image.size
    orientation, seen_by_dali = _orientation(image, file)
    kind = DALI if image.format in DALI_FORMATS and seen_by_dali else PILLOW
    return Facts(kind, width, height) if orientation in SWAPS_SIDES else Facts(kind, height, width)


def _orientation(image: Image.Image, file: IO[bytes]) -> tuple[int, bool]:
    """An image's orientation (1-8) as Pillow finds it, and whether DALI finds the same."""
    if image.format == "PNG" and "exif" not in image.info and not _png_has_late_exif(file):
        return 1, True  # else getexif decodes the whole image in search of it
    orientation = image.getexif().get(ORIENTATION, 1)
    in_exif = Image.Exif()  # Pillow looks into XMP and TIFF tags as well
    in_exif.load(image.info.get("exif", b""))
    return orientation, in_exif.get(ORIENTATION, 1) == orientation


def _png_has_late_exif(file: IO[bytes]) -> bool:
    """Whether a PNG has an eXIf chunk behind its pixels (PNG 3rd edition, 5.3: length, type, content, check sum)."""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(place)  # Pillow goes on from there


def _bits(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _file(root: str) -> Path:
    folder = cache_dir() / "manifests"
    folder.mkdir(exist_ok=True)
    return folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:24]}-v{VERSION}.npy"


def _load(root: str) -> np.ndarray:
    """The cached facts, sorted by their keys."""
    with contextlib.suppress(OSError, ValueError, EOFError):  # not there yet, or not whole: read the headers again
        table = np.load(_file(root), allow_pickle=False)
        if table.dtype == FACTS:
            return table
    return np.zeros(0, FACTS)


def _save(root: str, facts: np.ndarray) -> None:
    """Writes the facts beside their place and moves them in whole; BAD ones are left out, so that a mend shows."""
    good = facts[facts["kind"] != BAD]
    with contextlib.suppress(OSError):  # without a cache the next start takes a little longer, no more
        target = _file(root)
        with tempfile.TemporaryDirectory(dir=target.parent) as staging:  # which goes, whatever happens
            part = Path(staging, target.name)
            np.save(part, good[np.unique(good["key"], return_index=True)[1]])
            os.replace(part, target)

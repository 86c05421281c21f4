"""Image headers: the decoder that each file needs, its size and orientation. Read once and cached on disk."""

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow.compute as pc
import xxhash
from PIL import Image, UnidentifiedImageError

from fastpets.data import storage
from fastpets.data.image import FIRST_TURNED, is_deep, orientation
from fastpets.data.path_table import PathTable, as_path_table
from fastpets.errors import reason, warn
from fastpets.utils.atomic import write_atomically
from fastpets.utils.progress import track
from fastpets.utils.system import cache_dir, cache_problem

PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
PNG_METADATA_KEYS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
PNG_KEY_BYTES = max(map(len, PNG_METADATA_KEYS))
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
CHECKSUM_BYTES = 16  # at the start of the cache file, of the rows after it
VERSION = 5  # part of the cache file's name: increase it when a column or its meaning changes
DALI_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
BAD, DALI, PILLOW, DEEP = range(4)
MAX_STAMPED = 1_000_000  # larger data sets are not checked for changed files, since that would take long
# A row of the cache: a hash of the file's path and stamp, then the first four fields of `Header`.
ROW = np.dtype(
    [("key", np.uint64), ("decoder", np.uint8), ("height", np.int32), ("width", np.int32), ("orientation", np.uint8)]
)


class Header(NamedTuple):
    """What is known of a file before it is decoded.

    Attributes:
        decoder: BAD, DALI, PILLOW, or DEEP: Pillow, for more than 8 bits.
        height, width: of the upright image, in pixels.
        orientation: how it is stored, by EXIF's numbers 1 to 8.
        problem: of a BAD file.
    """

    decoder: int
    height: int
    width: int
    orientation: int = 1
    problem: str = ""


@dataclass(frozen=True, eq=False)
class ImageHeaders:
    """The headers of N files. The arrays are read-only.

    Args:
        paths: of the files.
        decoders: (N,) uint8: BAD, DALI, PILLOW, or DEEP: Pillow, for more than 8 bits.
        heights, widths: (N,) int32 in pixels, of the upright images; 0 for a file without a size.
        orientations: (N,) uint8: how the pixels are stored, by EXIF's numbers 1 to 8.
        problems: the problem of each BAD file, by its path.
        keys: (N,) uint64, the `file_keys`; None if they are without stamps, as those of more than MAX_STAMPED files.
    """

    paths: PathTable
    decoders: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    orientations: np.ndarray
    problems: dict[str, str]
    keys: np.ndarray | None = None

    def __post_init__(self) -> None:
        for array in (self.decoders, self.heights, self.widths, self.orientations):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.decoders)

    @property
    def usable(self) -> np.ndarray:
        """(N,) bool: which files are not BAD."""
        return self.decoders != BAD

    def select(self, ids: np.ndarray, paths: PathTable | None = None) -> "ImageHeaders":
        """The headers of the files `ids` in that order. `paths` are their paths, if the caller has selected them."""
        paths = self.paths.select(ids) if paths is None else paths
        decoders = self.decoders[ids]
        bad = [paths[i] for i in np.flatnonzero(decoders == BAD).tolist()]
        problems = {path: self.problems[path] for path in bad}
        keys = None if self.keys is None else self.keys[ids]
        arrays = decoders, self.heights[ids], self.widths[ids], self.orientations[ids]
        return ImageHeaders(paths, *arrays, problems, keys)

    def stored_size(self, i: int) -> tuple[int, int]:
        """Height and width of image `i` as it is stored."""
        height, width = int(self.heights[i]), int(self.widths[i])
        return (width, height) if self.orientations[i] >= FIRST_TURNED else (height, width)

    def stored_sizes(self, ids: np.ndarray) -> np.ndarray:
        """Height and width of the images `ids` (B,) as they are stored: (B, 2)."""
        sizes = np.stack([self.heights[ids], self.widths[ids]], axis=-1)
        return np.where(self.orientations[ids, None] >= FIRST_TURNED, sizes[:, ::-1], sizes)

    def read_again(self, i: int, max_pixels: int) -> bool:
        """Reads the header of a file that has changed. Returns whether it is good, and has at most `max_pixels`.

        Apart from this, headers never change. Others that share arrays with these keep what they have.
        """
        header = read_header(self.paths[i])
        if header.decoder == BAD or header.height * header.width > max_pixels:
            return False
        values = {"decoders": header.decoder, "heights": header.height, "widths": header.width}
        for name, value in {**values, "orientations": header.orientation}.items():
            if not getattr(self, name).flags.writeable:
                object.__setattr__(self, name, getattr(self, name).copy())  # the dataclass is frozen
            getattr(self, name)[i] = value
        return True

    def limited(self, max_pixels: int) -> "ImageHeaders":
        """Headers of their own with images of more than `max_pixels` marked as BAD."""
        large = self.usable & (self.heights.astype(np.int64) * self.widths > max_pixels)
        problems = {
            self.paths[i]: f"{self.widths[i]:,} x {self.heights[i]:,} px, expected at most {max_pixels:,} pixels; "
            "shrink it, or raise max_pixels"
            for i in np.flatnonzero(large).tolist()
        }
        return replace(self, decoders=np.where(large, BAD, self.decoders), problems=self.problems | problems)


def scan_headers(paths: Sequence[str], root: str, num_workers: int) -> ImageHeaders:
    """The headers of all files, from the cache or read by `num_workers` threads.

    `root` names the data set's cache file. A cached header is used if the file's size and modification time are
    unchanged. With more than MAX_STAMPED files they are not compared: a changed file is noticed only when it is read.
    """
    paths = as_path_table(paths)
    cached = _load(root)
    rows = np.zeros(len(paths), ROW)
    problems: dict[str, str] = {}
    with ThreadPoolExecutor(num_workers) as pool, warnings.catch_warnings():
        # Pillow warns from half of the number of pixels on from which it raises.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        is_stamped = len(paths) <= MAX_STAMPED
        rows["key"] = file_keys(paths, pool) if is_stamped else paths.absolute().hashes()
        by_key = np.argsort(rows["key"])  # searching in sorted order is 15 times as fast
        indices = np.empty(len(paths), np.int64)
        indices[by_key] = np.searchsorted(cached["key"], rows["key"][by_key]).clip(max=max(0, len(cached) - 1))
        found = cached["key"][indices] == rows["key"] if len(cached) else np.zeros(len(paths), bool)
        rows[found] = cached[indices[found]]
        missing = np.flatnonzero(~found)
        for i, header in track(_read_headers(paths, missing, pool), "reading headers", len(missing)):
            rows[i] = (rows["key"][i], *header[:4])
            if header.decoder == BAD:
                problems[paths[i]] = header.problem
    ends_here = pc.starts_with(paths.array, b"memory:").to_numpy(False)  # such files end with this process
    if (is_new := ~found & ~ends_here).any():
        _save(root, np.concatenate([cached, rows[is_new]]))
    decoders, heights, widths, orientations = (
        rows[name].copy() for name in ("decoder", "height", "width", "orientation")
    )
    return ImageHeaders(
        paths, decoders, heights, widths, orientations, problems, rows["key"].copy() if is_stamped else None
    )


def file_keys(paths: PathTable, pool: Executor) -> np.ndarray:
    """A hash of each file's absolute path, size and modification time: (N,) uint64."""
    stamps = (xxhash.xxh64_intdigest(stamp.encode()) for stamp in storage.stamps(paths, pool))
    return paths.absolute().hashes() + np.fromiter(stamps, np.uint64, len(paths))


def _read_headers(paths: Sequence[str], ids: np.ndarray, pool: Executor) -> Iterator[tuple[int, Header]]:
    """The headers of the files `ids`, read in parallel, each with its id."""
    for start in range(0, len(ids), storage.CHUNK):
        chunk = ids[start : start + storage.CHUNK].tolist()
        yield from zip(chunk, pool.map(read_header, [paths[i] for i in chunk]), strict=True)


def read_header(path: str) -> Header:
    """Reads one file's header. Problems are returned, not raised.

    Of a local file only the header is read; a remote file or a member of a shard is read whole.
    """
    try:
        is_local = not (storage.is_remote(path) or storage.MEMBER.fullmatch(path))
        if is_local and not stat.S_ISREG(mode := os.stat(path).st_mode):  # opening a FIFO would wait for a writer
            return _bad(f"{KINDS.get(stat.S_IFMT(mode), 'a device')}, expected an image")
        with open(path, "rb") if is_local else io.BytesIO(storage.read(path)) as file:
            return _parse_header(file)
    except Image.DecompressionBombError as error:
        return _bad(str(error))
    except OSError as error:
        return _bad(f"unreadable ({reason(error)})")
    except Exception as error:  # on damaged files, Pillow's parsers raise errors of any type
        return _bad(f"damaged header ({type(error).__name__}: {error})")


def _parse_header(file: IO[bytes]) -> Header:
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        return _bad(_why_unidentified(file))
    width, height = image.size
    decoder = DALI if image.format in DALI_FORMATS else PILLOW
    if image.mode == "CMYK":
        decoder = PILLOW  # DALI converts it differently
    if image.format == "PNG" and _png_bit_depth(file) > 8:
        decoder = PILLOW  # it keeps the higher byte, DALI rounds
    if is_deep(image):
        decoder = DEEP
    if image.format == "PNG" and not _png_has_metadata(file):
        return Header(decoder, height, width)  # getexif would decode the whole image in search of late chunks
    stored_orientation = orientation(image)
    upright = (width, height) if stored_orientation >= FIRST_TURNED else (height, width)
    return Header(decoder, *upright, stored_orientation)


def _why_unidentified(file: IO[bytes]) -> str:
    """Why Pillow does not open a file: what the plugin of its format says, if it begins as an image does."""
    file.seek(0)
    prefix = file.read(16)
    if not prefix:
        return "0 bytes, expected an image"
    for name, (plugin, accepts) in Image.OPEN.items():
        if accepts is not None and accepts(prefix) is True:
            file.seek(0)
            try:
                plugin(file, "")
            except Exception as error:  # the plugin's own error, which Image.open discards
                return f"damaged or unsupported {name} ({error})"
    return f"begins with {prefix[:12]!r}, expected an image"


def _bad(problem: str) -> Header:
    return Header(BAD, 0, 0, problem=problem)


def _png_bit_depth(file: IO[bytes]) -> int:
    """Bits per channel, from the header chunk (PNG 3rd edition, 11.2.1)."""
    position = file.tell()
    file.seek(24)
    (bit_depth,) = file.read(1)
    file.seek(position)  # Pillow continues from here
    return bit_depth


def _png_has_metadata(file: IO[bytes]) -> bool:
    """Whether a PNG has a chunk in which Pillow looks for an orientation, before or after its pixels.

    A chunk is a length, a type, content and a checksum (PNG 3rd edition, 5.3). Text begins with a key (11.3.3).
    """
    position = file.tell()
    try:
        file.seek(8)
        while len(chunk := file.read(8)) == 8:
            start, kind = file.tell(), chunk[4:]
            if kind == b"eXIf" or (kind in PNG_TEXT and file.read(PNG_KEY_BYTES).startswith(PNG_METADATA_KEYS)):
                return True
            file.seek(start + int.from_bytes(chunk[:4], "big") + 4)
        return False
    finally:
        file.seek(position)  # Pillow continues from here


def _cache_file(root: str) -> Path:
    folder = cache_dir() / "headers"
    folder.mkdir(exist_ok=True)
    return folder / f"{xxhash.xxh3_128_hexdigest(os.fsencode(root))}-v{VERSION}.rows"


def _load(root: str) -> np.ndarray:
    """The cached rows, sorted by key; no rows if there is no intact cache."""
    with contextlib.suppress(OSError):
        content = np.fromfile(_cache_file(root), np.uint8)
        checksum, rows = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
        if xxhash.xxh3_128_digest(rows.data) == checksum.tobytes():
            return rows.view(ROW)
    return np.zeros(0, ROW)


def _save(root: str, rows: np.ndarray) -> None:
    """Replaces the cache. BAD files are not stored, so that they are read again in the next scan."""
    good = rows[rows["decoder"] != BAD]
    good = good[np.unique(good["key"], return_index=True)[1]]

    def write(staging: Path) -> None:
        with open(staging, "wb") as file:
            file.write(xxhash.xxh3_128_digest(good.data))
            file.write(good.data)

    try:
        write_atomically(_cache_file(root), write)
    except OSError as error:
        warn(f"image headers are read again at each start, since they cannot be cached: {cache_problem(error)}")

"""Image headers are read once, cached, and read again when a file changes."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from fastpets.data import headers
from fastpets.data.dataset import ImageDataset
from fastpets.data.headers import BAD, DALI, PILLOW, ROW, Header, ImageHeaders
from fastpets.data.sources import from_folder
from tests.images import drawing, encode


@pytest.fixture
def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers are read during the test."""
    read: list[str] = []
    read_header = headers.read_header
    monkeypatch.setattr(headers, "read_header", lambda path: (read.append(Path(path).name), read_header(path))[1])
    return read


def scan(dataset: ImageDataset, num_workers: int) -> ImageHeaders:
    found = dataset.scanned(num_workers).headers
    assert found is not None
    return found


def test_sizes_are_the_upright_ones_that_pillow_gives(sample: Path) -> None:
    from PIL import ImageOps

    dataset = from_folder(sample)
    found = scan(dataset, 2)
    for path, decoder, height, width in zip(dataset.paths, found.decoders, found.heights, found.widths, strict=True):
        with Image.open(path) as image:
            assert decoder == (PILLOW if image.format == "GIF" or image.mode == "CMYK" else DALI)
            assert (width, height) == ImageOps.exif_transpose(image).size
    assert found.problems == {}


def test_a_header_is_read_once_and_again_when_its_file_changes(
    make_folder: Callable[..., Path], headers_read: list[str]
) -> None:
    folder = make_folder(6)
    scan(from_folder(folder), 2)
    assert len(headers_read) == 6
    headers_read.clear()
    first = scan(from_folder(folder), 2)
    assert headers_read == []
    changed = folder / "kind0_0.jpg"
    drawing(10, 20).save(changed)
    second = scan(from_folder(folder), 2)
    assert headers_read == ["kind0_0.jpg"]
    assert (first.heights[0], second.heights[0], second.widths[0]) == (40, 10, 20)


def test_a_change_to_the_same_size_is_noticed_by_the_modification_time(
    make_folder: Callable[..., Path], headers_read: list[str]
) -> None:
    folder = make_folder(2)
    scan(from_folder(folder), 1)
    os.utime(folder / "kind0_0.jpg", ns=(1, 1))
    headers_read.clear()
    scan(from_folder(folder), 1)
    assert headers_read == ["kind0_0.jpg"]


def test_relative_paths_mean_other_files_in_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, sizes in bytes and times of the files are equal."""
    for number, size in enumerate([(20, 40), (40, 20)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.bmp").write_bytes(encode(drawing(*size), "BMP"))
        os.utime(folder / "a.bmp", ns=(1, 1))
        monkeypatch.chdir(folder)
        for root in ("", "/same"):
            dataset = ImageDataset(["a.bmp"], [0], ["cat"], root=root)
            assert dataset.root == (root or str(folder))
            found = scan(dataset, 1)
            assert (found.heights[0], found.widths[0]) == size


def test_images_in_memory_are_not_kept_in_the_cache(make_folder: Callable[..., Path], cache: Path) -> None:
    path = next(make_folder(1).iterdir())
    sizes = set()
    for call in range(3):
        with fsspec.open(f"memory://mixed/{call}.jpg", "wb") as file:
            file.write(path.read_bytes())
        scan(ImageDataset([str(path), f"memory://mixed/{call}.jpg"], [0, 0], ["cat"]), 1)
        sizes.add(sum(rows.stat().st_size for rows in cache.rglob("*.rows")))
    assert len(sizes) == 1


def test_a_bad_file_is_named_with_its_problem_and_read_again_when_repaired(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(3)
    (folder / "a_1.jpg").write_bytes(b"")
    (folder / "b_2.jpg").write_text("not an image at all")
    (folder / "c_3.jpg").symlink_to(folder / "nowhere.jpg")
    found = scan(from_folder(folder), 2)
    problems = {Path(path).name: problem for path, problem in found.problems.items()}
    assert problems == {
        "a_1.jpg": "0 bytes, expected an image",
        "b_2.jpg": "begins with b'not an image', expected an image",
        "c_3.jpg": "unreadable (No such file or directory)",
    }
    assert list(found.decoders) == [BAD, BAD, BAD, DALI, DALI, DALI]
    assert list(np.flatnonzero(found.usable)) == [3, 4, 5]
    drawing(9, 9).save(folder / "a_1.jpg")
    assert scan(from_folder(folder), 2).decoders[0] == DALI


def test_a_decompression_bomb_is_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "bomb_1.png"
    Image.new("1", (30_000, 30_000)).save(path)
    assert "pixels" in next(iter(scan(from_folder(tmp_path), 1).problems.values()))


def test_no_warning_of_a_decompression_bomb_below_the_limit(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large_1.png")
    assert scan(from_folder(tmp_path), 1).heights.tolist() == [10_000]
    assert not recwarn


@pytest.fixture
def cached_folder(make_folder: Callable[..., Path], cache: Path) -> tuple[Path, Path]:
    """A folder of images whose headers are cached, and the file of the cache."""
    folder, before = make_folder(4), set(cache.rglob("*.rows"))
    scan(from_folder(folder), 1)
    (cache_file,) = set(cache.rglob("*.rows")) - before  # one file for each root
    return folder, cache_file


@pytest.mark.parametrize("position", [*range(0, 16, 5), *range(16, 88, 3)])
def test_a_flipped_bit_anywhere_in_the_cache_means_a_new_scan(
    cached_folder: tuple[Path, Path], headers_read: list[str], position: int
) -> None:
    folder, cache_file = cached_folder
    expected = scan(from_folder(folder), 1)
    content = bytearray(cache_file.read_bytes())
    content[position] ^= 1 << position % 8
    cache_file.write_bytes(content)
    found = scan(from_folder(folder), 1)
    assert len(headers_read) == 4
    assert all(
        np.array_equal(getattr(found, name), getattr(expected, name)) for name in ("heights", "widths", "decoders")
    )
    headers_read.clear()
    scan(from_folder(folder), 1)
    assert headers_read == []  # the cache has healed


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-20],
        lambda content: content[:7],
        lambda content: b"",
        lambda content: content + b"\0" * ROW.itemsize,
        lambda content: np.random.default_rng(0).bytes(1000),
        lambda content: b"{}",
    ],
    ids=["truncated", "a piece", "empty", "longer", "random", "foreign"],
)
def test_a_damaged_cache_file_is_replaced(
    cached_folder: tuple[Path, Path], headers_read: list[str], damage: Callable[[bytes], bytes]
) -> None:
    folder, cache_file = cached_folder
    content = cache_file.read_bytes()
    cache_file.write_bytes(damage(content))
    scan(from_folder(folder), 1)
    assert len(headers_read) == 4
    assert cache_file.read_bytes() == content
    assert not [path for path in cache_file.parent.iterdir() if path.suffix != ".rows"]  # no temporary files remain


@pytest.mark.parametrize("what", ["a FIFO", "a folder", "a socket"])
def test_what_is_no_file_is_a_bad_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x_1.jpg"
    if what == "a FIFO":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    else:
        socket.socket(socket.AF_UNIX).bind(str(path))
    assert headers.read_header(str(path)) == Header(BAD, 0, 0, problem=f"{what}, expected an image")


def twelve_bit(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xc0")
    return jpeg[: start + 4] + b"\x0c" + jpeg[start + 5 :]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "damaged or unsupported PNG ("),
        (encode(drawing(9, 9), "PNG").replace(b"IHDR", b"IHDS"), "damaged or unsupported PNG ("),
        (twelve_bit(encode(drawing(9, 9), "JPEG")), "damaged or unsupported JPEG (cannot handle 12-bit layers)"),
        (encode(drawing(9, 9), "JPEG")[:30], "unreadable (Truncated File Read)"),
        (encode(drawing(9, 9), "BMP")[:20], "unreadable (Truncated File Read)"),
        (b"GIF89a", "damaged or unsupported GIF ("),
    ],
)
def test_a_file_that_begins_as_an_image_is_named_with_what_pillow_says(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "image_1.jpg"
    path.write_bytes(content)
    found = headers.read_header(str(path))
    assert found.decoder == BAD
    assert found.problem.startswith(problem)
    assert "expected an image" not in found.problem


def test_a_part_of_a_data_set_uses_the_cache_of_the_whole(
    make_folder: Callable[..., Path], headers_read: list[str]
) -> None:
    dataset = from_folder(make_folder(6))
    whole = scan(dataset, 1)
    headers_read.clear()
    part = scan(dataset.select(np.array([4, 1])), 1)
    assert headers_read == []
    assert (part.heights == whole.heights[[4, 1]]).all()


def test_without_a_cache_folder_headers_are_read_all_the_same(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert (scan(from_folder(make_folder(3)), 1).decoders == DALI).all()


def test_an_empty_data_set_has_empty_headers() -> None:
    assert len(scan(ImageDataset((), np.zeros(0, np.int64), ()), 1).decoders) == 0


def test_images_of_more_than_max_pixels_are_bad_but_not_in_the_cached_headers(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(4)
    found = scan(from_folder(folder), 1)
    limit = 50 * 60
    limited = found.limited(limit)
    sizes = found.heights * found.widths
    assert (limited.usable == (sizes <= limit)).all()
    assert 0 < limited.usable.sum() < 4
    assert found.usable.all()
    large = int(np.flatnonzero(~limited.usable)[0])
    assert limited.problems[found.paths[large]] == (
        f"{found.widths[large]} x {found.heights[large]} px, expected at most 3,000 pixels; "
        "shrink it, or raise max_pixels"
    )
    assert set(limited.problems) == {found.paths[i] for i in np.flatnonzero(~limited.usable)}
    assert found.limited(10**9).usable.all()
    assert scan(from_folder(folder), 1).usable.all()


def test_a_selection_has_the_problems_of_its_own_files(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(3)
    (folder / "a_1.jpg").write_bytes(b"")
    (folder / "b_1.jpg").write_bytes(b"")
    found = scan(from_folder(folder), 1)
    selected = found.select(np.array([4, 1]))
    assert list(selected.usable) == [True, False]
    assert [Path(path).name for path in selected.problems] == ["b_1.jpg"]
    assert selected.heights[0] == found.heights[4]


def test_headers_are_read_only(make_folder: Callable[..., Path]) -> None:
    found = scan(from_folder(make_folder(2)), 1)
    for part in (found, found.select(np.array([0])), found.limited(1)):
        with pytest.raises(ValueError, match="read-only"):
            part.decoders[0] = BAD

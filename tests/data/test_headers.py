"""Image headers are read once, cached, and read again when a file changes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastpets.data import headers
from fastpets.data.dataset import ImageDataset
from fastpets.data.headers import BAD, DALI, PILLOW, ImageHeaders
from fastpets.data.sources import from_folder
from tests.images import drawing


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
            assert decoder == (PILLOW if image.format == "GIF" else DALI)
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


def test_a_damaged_cache_file_is_replaced(
    make_folder: Callable[..., Path], headers_read: list[str], cache: Path
) -> None:
    folder = make_folder(4)
    before = set(cache.rglob("*.npy"))
    expected = scan(from_folder(folder), 1)
    (kept,) = set(cache.rglob("*.npy")) - before  # one file for each root
    kept.write_bytes(kept.read_bytes()[:-20])
    headers_read.clear()
    found = scan(from_folder(folder), 1)
    assert len(headers_read) == 4
    assert (found.heights == expected.heights).all()
    assert not [path for path in kept.parent.iterdir() if path.suffix != ".npy"]  # no temporary files remain


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
    assert found.limited(10**9) is found
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

"""The headers: read once, kept in the cache, and never out of date."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastpets.data import headers
from fastpets.data.dataset import ImageDataset
from fastpets.data.headers import BAD, DALI, PILLOW, scan
from fastpets.data.sources import from_folder
from tests.images import drawing


@pytest.fixture
def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose headers are read from here on."""
    read: list[str] = []
    read_header = headers.read_header
    monkeypatch.setattr(headers, "read_header", lambda path: (read.append(Path(path).name), read_header(path))[1])
    return read


def test_facts_are_the_upright_sizes_that_pillow_gives(sample: Path) -> None:
    from PIL import ImageOps

    dataset = from_folder(sample)
    facts = scan(dataset, 2)
    for path, kind, height, width in zip(dataset.paths, facts.decoders, facts.heights, facts.widths, strict=True):
        with Image.open(path) as image:
            assert kind == (PILLOW if image.format == "GIF" else DALI)
            assert (width, height) == ImageOps.exif_transpose(image).size
    assert facts.problems == {}


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


def test_a_change_of_the_same_size_is_seen_by_its_time(
    make_folder: Callable[..., Path], headers_read: list[str]
) -> None:
    folder = make_folder(2)
    scan(from_folder(folder), 1)
    os.utime(folder / "kind0_0.jpg", ns=(1, 1))
    headers_read.clear()
    scan(from_folder(folder), 1)
    assert headers_read == ["kind0_0.jpg"]


def test_a_bad_file_is_named_with_what_was_found_and_seen_again_when_mended(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(3)
    (folder / "a_1.jpg").write_bytes(b"")
    (folder / "b_2.jpg").write_text("not an image at all")
    (folder / "c_3.jpg").symlink_to(folder / "nowhere.jpg")
    facts = scan(from_folder(folder), 2)
    problems = {Path(path).name: problem for path, problem in facts.problems.items()}
    assert problems == {
        "a_1.jpg": "0 bytes, expected an image",
        "b_2.jpg": "begins with b'not a pictur', expected an image",
        "c_3.jpg": "unreadable (No such file or directory)",
    }
    assert list(facts.decoders) == [BAD, BAD, BAD, DALI, DALI, DALI]
    assert list(np.flatnonzero(facts.usable)) == [3, 4, 5]
    drawing(9, 9).save(folder / "a_1.jpg")
    assert scan(from_folder(folder), 2).decoders[0] == DALI


def test_a_decompression_bomb_is_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "bomb_1.png"
    Image.new("1", (30_000, 30_000)).save(path)
    assert "pixels" in next(iter(scan(from_folder(tmp_path), 1).problems.values()))


def test_a_cached_file_that_is_not_whole_is_made_anew(
    make_folder: Callable[..., Path], headers_read: list[str], cache: Path
) -> None:
    folder = make_folder(4)
    before = set(cache.rglob("*.npy"))
    expected = scan(from_folder(folder), 1)
    (kept,) = set(cache.rglob("*.npy")) - before  # one file a folder
    kept.write_bytes(kept.read_bytes()[:-20])
    headers_read.clear()
    found = scan(from_folder(folder), 1)
    assert len(headers_read) == 4
    assert (found.heights == expected.heights).all()
    assert not [path for path in kept.parent.iterdir() if path.suffix != ".npy"]  # nothing half-written stays


def test_a_part_of_a_folder_uses_the_whole_folders_facts(
    make_folder: Callable[..., Path], headers_read: list[str]
) -> None:
    dataset = from_folder(make_folder(6))
    whole = scan(dataset, 1)
    headers_read.clear()
    part = scan(dataset.select(np.array([4, 1])), 1)
    assert headers_read == []
    assert (part.heights == whole.heights[[4, 1]]).all()


def test_a_cache_folder_that_cannot_be_made_is_done_without(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert (scan(from_folder(make_folder(3)), 1).decoders == DALI).all()


def test_no_items_have_no_facts() -> None:
    assert len(scan(ImageDataset((), np.zeros(0, np.int64), ()), 1).decoders) == 0

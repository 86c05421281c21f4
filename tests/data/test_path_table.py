"""A PathTable behaves as the sequence of strings that it was made from."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from fastpets.data.path_table import PathTable

NAMES = ["a.jpg", "", "Größe é ü.jpg", "two\nlines.png", "\udcff not UTF-8.gif", "a.jpg", "s3://bucket/key"]


def test_paths_are_returned_unchanged() -> None:
    paths = PathTable(NAMES)
    assert list(paths) == NAMES
    assert [paths[i] for i in range(-len(NAMES), len(NAMES))] == NAMES * 2
    assert list(paths[1:6:2]) == NAMES[1:6:2]
    assert len(paths) == len(NAMES)
    with pytest.raises(IndexError):
        paths[len(NAMES)]


@pytest.mark.parametrize("ids", [[], [3], [6, 0, 0, 2]])
def test_a_selection_has_the_paths_at_the_indices(ids: list[int]) -> None:
    assert list(PathTable(NAMES).select(np.array(ids, np.int64))) == [NAMES[i] for i in ids]


def test_tables_are_equal_if_their_paths_are() -> None:
    assert PathTable(NAMES) == PathTable(NAMES) == pickle.loads(pickle.dumps(PathTable(NAMES)))
    assert PathTable(["ab", "c"]) != PathTable(["a", "bc"])
    assert PathTable(["ab"]) != PathTable(["a", "b"])
    assert hash(PathTable(NAMES)) == hash(PathTable(NAMES))


def test_each_of_a_million_paths_takes_its_bytes_and_eight_more() -> None:
    paths = PathTable(f"folder/of/images/image_{i:07}.jpg" for i in range(1_000_000))
    assert paths.array.nbytes <= 1_000_000 * (len(paths[0]) + 8) + 8
    assert paths[999_999] == "folder/of/images/image_0999999.jpg"


def test_absolute_paths_have_the_working_folder_before_relative_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["a.jpg", "b/c.jpg", "/d.jpg", "s3://e/f.jpg", "caf\udce9.jpg"]
    expected = [f"{tmp_path}/a.jpg", f"{tmp_path}/b/c.jpg", "/d.jpg", "s3://e/f.jpg", f"{tmp_path}/caf\udce9.jpg"]
    assert list(PathTable(paths).absolute()) == expected
    assert list(PathTable().absolute()) == []


def test_hashes_depend_on_the_path_alone() -> None:
    hashes = PathTable(NAMES).hashes()
    assert hashes.dtype == np.uint64
    assert len(set(hashes.tolist())) == len(set(NAMES))
    assert (PathTable(NAMES).select(np.array([5, 2])).hashes() == hashes[[5, 2]]).all()


def test_fingerprints_ignore_the_folder_that_holds_all_paths() -> None:
    names = ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    prints = {PathTable(f"{folder}{name}" for name in names).fingerprint() for folder in ("", "x/", "/x/y/", "s3://z/")}
    assert len(prints) == 1
    assert PathTable(["a/1.jpg", "b/1.jpg", "a/2.jpg"]).fingerprint() not in prints


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_repeats_are_those_that_a_dictionary_finds(count: int) -> None:
    names = [f"/images/{number}.jpg" for number in np.random.default_rng(count).integers(0, 100, count)]
    seen: dict[str, int] = {}
    expected = [(seen[name], i) for i, name in enumerate(names) if seen.setdefault(name, i) != i]
    firsts, others = PathTable(names).repeats()
    assert list(zip(firsts.tolist(), others.tolist(), strict=True)) == expected
    assert [len(ids) for ids in PathTable(sorted(set(names))).repeats()] == [0, 0]

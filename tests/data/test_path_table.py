"""Packed paths behave as the strings that went in."""

import pickle

import numpy as np
import pytest

from fastpets.data.path_table import PathTable

NAMES = ["a.jpg", "", "Größe é ü.jpg", "two\nlines.png", "\udcff not UTF-8.gif", "a.jpg", "s3://bucket/key"]


def test_paths_come_out_as_they_went_in() -> None:
    paths = PathTable(NAMES)
    assert list(paths) == NAMES
    assert [paths[i] for i in range(-len(NAMES), len(NAMES))] == NAMES * 2
    assert list(paths[1:6:2]) == NAMES[1:6:2]
    assert len(paths) == len(NAMES)
    with pytest.raises(IndexError):
        paths[len(NAMES)]


@pytest.mark.parametrize("ids", [[], [3], [6, 0, 0, 2]])
def test_a_selection_is_those_at_the_places(ids: list[int]) -> None:
    assert list(PathTable(NAMES).select(np.array(ids, np.int64))) == [NAMES[i] for i in ids]


def test_equal_paths_are_equal_and_others_are_not() -> None:
    assert PathTable(NAMES) == PathTable(NAMES) == pickle.loads(pickle.dumps(PathTable(NAMES)))
    assert PathTable(["ab", "c"]) != PathTable(["a", "bc"])
    assert PathTable(["ab"]) != PathTable(["a", "b"])
    assert hash(PathTable(NAMES)) == hash(PathTable(NAMES))


def test_a_million_paths_take_their_bytes_and_eight_more_each() -> None:
    paths = PathTable(f"folder/of/images/image_{i:07}.jpg" for i in range(1_000_000))
    assert len(paths.content) + paths.starts.nbytes == 1_000_000 * (len(paths[0]) + 8) + 8
    assert paths[999_999] == "folder/of/images/image_0999999.jpg"

"""The list of a run's images: the same images elsewhere are accepted, and every difference is named."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastpets.data.dataset import ImageDataset
from fastpets.errors import FastpetsError
from fastpets.runs.images import IMAGES, VALIDATION, check_images, count_images, same_images, save_images

CLASSES = ("cat", "dog")
FILES = [f"{CLASSES[number % 2]}/{number}.jpg" for number in range(6)]


def datasets(
    folder: Path, files: list[str], classes: tuple[str, ...] = CLASSES, num_train: int = 4
) -> tuple[ImageDataset, ImageDataset]:
    """A training and a validation set of files. Missing files are made, each with one byte more than the one before."""
    labels = np.array([number % 2 for number in range(len(files))])
    for number, name in enumerate(files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"0" * (number + 1))
    paths = [str(folder / name) for name in files]
    parts = slice(None, num_train), slice(num_train, None)
    train, valid = (ImageDataset(paths[part], labels[part], classes) for part in parts)
    return train, valid


def test_the_same_images_in_another_folder_are_accepted(tmp_path: Path) -> None:
    save_images(tmp_path, *datasets(tmp_path / "here", FILES))
    check_images(tmp_path, *datasets(tmp_path / "there" / "below", FILES))


def test_names_that_are_not_utf8_are_compared(tmp_path: Path) -> None:
    names = [os.fsdecode(b"\xff/1.jpg"), os.fsdecode(b"\xfe/2.jpg")]
    classes = (os.fsdecode(b"\xfe"), os.fsdecode(b"\xff"))
    save_images(tmp_path, *datasets(tmp_path / "here", names, classes, 1))
    check_images(tmp_path, *datasets(tmp_path / "there", names, classes, 1))
    with pytest.raises(FastpetsError, match=r"the class \\udcff is now wolf"):
        check_images(tmp_path, *datasets(tmp_path / "there", names, (classes[0], "wolf"), 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": [name.replace("dog", "wolf") for name in FILES], "classes": ("cat", "wolf")}, "dog is now wolf"),
        ({"classes": ("cat", "wolf")}, "the class dog is now wolf"),
        ({"files": FILES[:-1]}, "dog/5.jpg is missing"),
        ({"files": [*FILES, "cat/6.jpg"]}, "cat/6.jpg is new"),
        ({"files": [*FILES[:-1], "dog/x.jpg"]}, "dog/5.jpg is missing; dog/x.jpg is new"),
        ({"num_train": 5}, "cat/4.jpg is for training, was for validation"),
        ({"classes": ("dog", "cat")}, "cat/0.jpg is of the class dog, was of the class cat"),
        ({"files": [FILES[2], FILES[1], FILES[0], *FILES[3:]]}, "their order"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_difference_is_named(tmp_path: Path, change: dict, message: str) -> None:
    folder = tmp_path / "images"
    save_images(tmp_path, *datasets(folder, FILES))
    with pytest.raises(FastpetsError, match=rf"not the images of the run that is resumed: .*{message}.*; restore them"):
        check_images(tmp_path, *datasets(folder, **{"files": FILES, **change}))


def test_a_swapped_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    save_images(tmp_path, *datasets(folder, FILES))
    (folder / FILES[0]).rename(folder / "x")
    (folder / FILES[5]).rename(folder / FILES[0])
    (folder / "x").rename(folder / FILES[5])
    with pytest.raises(FastpetsError, match=r"cat/0.jpg is 6 bytes, was 1 bytes; dog/5.jpg is 1 bytes, was 6 bytes"):
        check_images(tmp_path, *datasets(folder, FILES))


@pytest.mark.parametrize("contents", [None, b"", b"rubbish"])
def test_a_damaged_list_is_one_line(tmp_path: Path, contents: bytes | None) -> None:
    if contents is not None:
        (tmp_path / IMAGES).write_bytes(contents)
    with pytest.raises(FastpetsError, match=rf"{IMAGES}: .*, expected the list of the run's images"):
        check_images(tmp_path, *datasets(tmp_path / "images", FILES))


def test_a_table_of_millions_has_no_sizes(make_folder: Callable[..., Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fastpets.runs.images.MAX_STAMPED", 3)
    save_images(tmp_path, *datasets(tmp_path / "here", FILES))
    check_images(tmp_path, *datasets(tmp_path / "here", FILES))


def test_runs_compare_if_their_validation_images_are_the_same(tmp_path: Path) -> None:
    here = tmp_path / "here"
    wolves = [name.replace("dog/5", "dog/6") for name in FILES]
    for name, arguments in {
        "run": (here, FILES),
        "moved": (tmp_path / "there", FILES),
        "other split": (here, FILES, CLASSES, 3),
        "other file": (tmp_path / "more", wolves),
        "other classes": (here, FILES, ("cat", "wolf")),
        "no list": None,
    }.items():
        (tmp_path / name).mkdir()
        if arguments is not None:
            save_images(tmp_path / name, *datasets(*arguments))
    run = tmp_path / "run"
    assert count_images(run) == {"training": 4, "validation": 2}
    assert same_images(run, tmp_path / "moved", VALIDATION)
    for name in ("other split", "other file", "other classes", "no list"):
        assert not same_images(run, tmp_path / name, VALIDATION), name
    assert not count_images(tmp_path / "no list")
    (here / FILES[5]).write_bytes(b"another image")
    (tmp_path / "changed").mkdir()
    save_images(tmp_path / "changed", *datasets(here, FILES))
    assert not same_images(run, tmp_path / "changed", VALIDATION)

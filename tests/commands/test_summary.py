"""`fastpets summary`: its description of a data set, the trace of an image, and data-quality warnings."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import fastpets
from fastpets.analysis import data_quality
from fastpets.cli import main
from tests.images import drawing


def test_a_data_set_is_described_and_an_image_traced(
    drawn_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "sample.png"
    flags = ["--size", "32", "--image", "beagle_0.jpg", "--out", str(out), "--seed", "3"]
    assert main(["summary", str(drawn_classes), *flags]) == 0
    printed = capsys.readouterr().out
    for line in (
        "60 images: 48 for training, 12 for validation",
        "suffixes: 60 .jpg",
        "heights: 60 to 116 px",
        "3 classes, with their numbers of training and validation images:",
        "beagle_0.jpg",
        r"label    2, 'beagle', from the pattern (.+)_\d+\.\w+$ on 'beagle_0.jpg'",
        "decoded  by DALI, upright, 70 x 60 px, 8-bit RGB",
        "batch    images (1, 3, 32, 32) float32, channels_last; labels (1,) int64",
    ):
        assert line in printed, line
    with Image.open(out) as image:
        assert image.size[0] > 800


def test_an_error_names_the_stage_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(10):
        drawing(40, 50, seed=number).save(tmp_path / f"kind{number % 2}_{number}.jpg")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-300])  # the headers are complete
    assert main(["summary", str(tmp_path), "--size", "16"]) == 1
    error = capsys.readouterr().err
    assert "stage 'decoding " in error
    assert "not decoded" in error
    assert main(["summary", str(tmp_path), "--label-pattern", "(x+)"]) == 1
    assert "stage 'files to data sets': " in capsys.readouterr().err
    assert main(["summary", str(tmp_path), "--image", "unicorn"]) == 1
    assert "--image: 'unicorn' is in no path of the 8 training images" in capsys.readouterr().err


def loaders(paths: list[tuple[str, str]], valid: list[tuple[str, str]]) -> tuple[fastpets.Loader, fastpets.Loader]:
    """Two loaders from pairs of path and label, with the classes of both."""
    from fastpets.data.dataset import with_class_names

    both = [*paths, *valid]
    dataset = with_class_names([path for path, _ in both], [label for _, label in both])
    split = range(len(paths)), range(len(paths), len(both))
    train, validation = (dataset.select(list(part)) for part in split)  # type: ignore[arg-type]
    return fastpets.Loader(train, size=16, augment=True, batch_size=2), fastpets.Loader(validation, size=16)


def test_there_are_no_warnings_for_a_good_data_set(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(40), size=16, batch_size=8)
    assert list(data_quality.find_warnings(train, valid)) == []


def test_smaller_and_recompressed_copies_in_validation_are_found(tmp_path: Path) -> None:
    names = []
    for number in range(12):
        path = tmp_path / f"{number}.jpg"
        drawing(90 + number, 120, seed=number).save(path, quality=95)
        names.append(str(path))
    with Image.open(names[3]) as image:
        image.save(tmp_path / "worse.jpg", quality=50)
        image.resize((60, 46)).save(tmp_path / "smaller.png")
    drawing(80, 80, seed=99).save(tmp_path / "other.jpg")
    train, valid = loaders(
        [(name, "ab"[n % 2]) for n, name in enumerate(names)],
        [(str(tmp_path / name), "a") for name in ("worse.jpg", "smaller.png", "other.jpg")],
    )
    assert data_quality.duplicates(train, valid) == [(3, 0), (3, 1)]
    (line,) = (line for line in data_quality.find_warnings(train, valid) if "look identical" in line)
    assert f"{names[3]} and {tmp_path / 'worse.jpg'}" in line


def test_small_and_imbalanced_classes_and_similar_labels_are_found(tmp_path: Path) -> None:
    labels = ["pug"] * 30 + ["Pug", "beagle"] * 2 + ["cat"]
    pairs = []
    for number, label in enumerate(labels):
        path = tmp_path / f"{number}.jpg"
        drawing(40, 50, seed=number).save(path)
        pairs.append((str(path), label))
    train, valid = loaders(pairs, pairs[:1])
    found = "\n".join(data_quality.find_warnings(train, valid))
    assert "classes with only one image (1): cat; add images" in found
    assert "classes without validation images (2): Pug, beagle; take another split_seed" in found
    assert "labels that differ only in case or spaces: 'Pug' and 'pug'" in found
    assert "imbalanced classes: pug 30 training images, cat 1" in found

"""What the summary says of a data set, and the doubts that it raises."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import fastpets
from fastpets.__main__ import main
from fastpets.analysis import data_quality
from tests.images import drawing


def test_a_data_set_is_counted_and_a_sample_followed(
    drawn_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "sample.png"
    flags = ["--size", "32", "--image", "beagle_0.jpg", "--out", str(out), "--seed", "3"]
    assert main(["summary", str(drawn_classes), *flags]) == 0
    printed = capsys.readouterr().out
    for line in (
        "60 images: 48 to train on, 12 to validate",
        "by their names: 60 .jpg",
        "heights: 60 to 116 px",
        "3 classes, images to train on and to validate:",
        "beagle_0.jpg",
        r"pattern (.+)_\d+\.\w+$ on 'beagle_0.jpg': 'beagle', number 2",
        "decoded  by DALI, upright, 70 x 60 px, 8-bit RGB",
        "batch    images (1, 3, 32, 32) float32, channels_last; labels (1,) int64",
    ):
        assert line in printed, line
    with Image.open(out) as image:
        assert image.size[0] > 800


def test_a_stage_that_fails_is_named_with_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(10):
        drawing(40, 50, seed=number).save(tmp_path / f"kind{number % 2}_{number}.jpg")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-300])  # their headers are whole
    assert main(["summary", str(tmp_path), "--size", "16"]) == 1
    complaint = capsys.readouterr().err
    assert "stage 'decoding " in complaint
    assert "not decoded" in complaint
    assert main(["summary", str(tmp_path), "--label-pattern", "(x+)"]) == 1
    assert "stage 'files to items': " in capsys.readouterr().err
    assert main(["summary", str(tmp_path), "--image", "unicorn"]) == 1
    assert "--image unicorn: in no path of the 8 images to train on" in capsys.readouterr().err


def loaders(paths: list[tuple[str, str]], valid: list[tuple[str, str]]) -> tuple[fastpets.Loader, fastpets.Loader]:
    """Two loaders over pairs of path and label, with the classes of both."""
    from fastpets.data.dataset import with_class_names

    both = [*paths, *valid]
    dataset = with_class_names([path for path, _ in both], [label for _, label in both])
    split = range(len(paths)), range(len(paths), len(both))
    train, validation = (dataset.select(list(part)) for part in split)  # type: ignore[arg-type]
    return fastpets.Loader(train, size=16, augment=True, batch_size=2), fastpets.Loader(validation, size=16)


def test_a_sound_data_set_raises_no_doubt(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(40), size=16, batch_size=8)
    assert list(data_quality.of(train, valid)) == []


def test_copies_across_the_split_are_found_though_smaller_or_of_another_quality(tmp_path: Path) -> None:
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
    assert data_quality.doubles(train, valid) == [(3, 0), (3, 1)]
    (line,) = (line for line in data_quality.of(train, valid) if "also trained on" in line)
    assert f"{names[3]} and {tmp_path / 'worse.jpg'}" in line


def test_tiny_and_unequal_classes_and_labels_that_differ_in_case_are_doubted(tmp_path: Path) -> None:
    labels = ["pug"] * 30 + ["Pug", "beagle"] * 2 + ["cat"]
    pairs = []
    for number, label in enumerate(labels):
        path = tmp_path / f"{number}.jpg"
        drawing(40, 50, seed=number).save(path)
        pairs.append((str(path), label))
    train, valid = loaders(pairs, pairs[:1])
    found = "\n".join(data_quality.of(train, valid))
    assert "1 classes have one image alone: cat; add images" in found
    assert "2 classes have no image to validate with: Pug, beagle; see --split-seed" in found
    assert "labels that differ in case or spaces alone: 'Pug' and 'pug'" in found
    assert "very unequal classes: pug 30 images to train on, cat 1" in found

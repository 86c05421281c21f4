"""`fastpets summary`: its description of a data set, the trace of an image, and data-quality warnings."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastpets.analysis import data_quality
from fastpets.analysis.trace import trace
from fastpets.augment.preprocessing import Preprocessing
from fastpets.cli import main
from fastpets.data.dataset import ImageDataset, labels_from_names
from fastpets.data.splits import train_valid_datasets
from fastpets.errors import FastpetsError
from fastpets.summary import class_counts
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
        "3 classes, with the numbers of training and validation images:",
        "beagle_0.jpg",
        r"label    2, 'beagle', from the pattern (.+)_\d+\.\w+$ on 'beagle_0.jpg'",
        "decoded  upright, 70 x 60 px, 8-bit RGB",
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


def test_with_skip_the_first_image_that_decodes_is_traced(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_folder(40)
    train, _ = train_valid_datasets(folder)
    for path in map(Path, train.paths[:2]):
        path.write_bytes(path.read_bytes()[:-400])  # the header is complete
    flags = ["summary", str(folder), "--size", "16", "--on-bad-file"]
    assert main([*flags, "skip", "--out", str(tmp_path / "traced.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (start,) = (place for place, line in enumerate(lines) if line == "Trace of one training image: item 2")
    for line, path in zip(lines[start - 2 : start], train.paths[:2], strict=True):
        assert line.startswith(f"Not traced, stage 'decoding {path}': not decoded")
    assert lines[start + 1].startswith(f"  file     {train.paths[2]}, ")
    # A file that is asked for, and the first one with "raise", are errors.
    for more in (["skip", "--image", Path(train.paths[1]).name], ["raise"]):
        assert main([*flags, *more]) == 1
        place = 1 if "skip" in more else 0
        assert capsys.readouterr().err.startswith(f"error: stage 'decoding {train.paths[place]}': not decoded")


def test_bad_headers_and_bad_labels_are_different_stages(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(20):
        drawing(40, 50, seed=number).save(tmp_path / f"kind{number % 2}_{number:02}.jpg")
    bad = tmp_path / "kind0_10.jpg"
    bad.write_bytes(b"")
    assert main(["summary", str(tmp_path), "--size", "16"]) == 1
    assert capsys.readouterr().err.startswith(f"error: stage 'image headers': {bad}: 0 bytes, expected an image; ")
    for path in tmp_path.iterdir():
        path.write_bytes(b"text")
    assert main(["summary", str(tmp_path), "--size", "16", "--on-bad-file", "skip"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: stage 'image headers': no training image is left: ")
    assert f"{tmp_path}/kind" in error


def data_sets(paths: list[tuple[str, str]], valid: list[tuple[str, str]]) -> tuple[ImageDataset, ImageDataset]:
    """Two data sets from pairs of path and label, with the classes of both."""
    both = [*paths, *valid]
    dataset = ImageDataset([path for path, _ in both], *labels_from_names(label for _, label in both))
    split = range(len(paths)), range(len(paths), len(both))
    train, validation = (dataset.select(np.array(part)) for part in split)
    return train, validation


def test_there_are_no_warnings_for_a_good_data_set(make_folder: Callable[..., Path]) -> None:
    train, valid = train_valid_datasets(make_folder(40))
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
    train, valid = data_sets(
        [(name, "ab"[n % 2]) for n, name in enumerate(names)],
        [(str(tmp_path / name), "a") for name in ("worse.jpg", "smaller.png", "other.jpg")],
    )
    hashes = (data_quality.difference_hashes(dataset) for dataset in (train, valid))
    assert data_quality.duplicates(*hashes) == [(3, 0), (3, 1)]
    (line,) = (line for line in data_quality.find_warnings(train, valid) if "look identical" in line)
    assert f"{names[3]} and {tmp_path / 'worse.jpg'}" in line


def test_uniform_images_of_different_colours_are_no_duplicates(tmp_path: Path) -> None:
    for name, grey in {"black": 0, "white": 255}.items():
        Image.new("RGB", (40, 30), (grey,) * 3).save(tmp_path / f"{name}.png")
    train, valid = data_sets([(str(tmp_path / "black.png"), "a")], [(str(tmp_path / "white.png"), "a")])
    hashes = (data_quality.difference_hashes(dataset) for dataset in (train, valid))
    assert data_quality.duplicates(*hashes) == []


def test_small_and_imbalanced_classes_and_similar_labels_are_found(tmp_path: Path) -> None:
    labels = ["pug"] * 30 + ["Pug", "beagle"] * 2 + ["cat"]
    pairs = []
    for number, label in enumerate(labels):
        path = tmp_path / f"{number}.jpg"
        drawing(40, 50, seed=number).save(path)
        pairs.append((str(path), label))
    train, valid = data_sets(pairs, pairs[:1])
    found = "\n".join(data_quality.find_warnings(train, valid))
    assert "classes with only one image (1): cat; add images" in found
    assert "classes without validation images (2): Pug, beagle; choose another split_seed" in found
    assert "classes that differ only in case, spaces or Unicode form: 'Pug' and 'pug'" in found
    assert "imbalanced classes: pug 30 training images, cat 1" in found


def test_a_class_without_training_images_does_not_hide_the_imbalance_of_the_others() -> None:
    train, valid = np.array([0] * 30 + [1, 1]), np.array([0, 1, 2, 2])
    found = list(data_quality.class_warnings(("pug", "beagle", "cat"), train, valid))
    assert [line for line in found if line.startswith("imbalanced classes: pug 30 training images, beagle 2")]


def test_images_without_a_label_are_not_counted() -> None:
    heading, *lines = class_counts(("a", "b"), np.array([0, 1, -1]), np.array([-1, 1]))
    assert heading.startswith("  2 classes, ")
    assert [line.split() for line in lines] == [["a", "1", "0"], ["b", "1", "1"]]


def test_a_class_none_of_whose_files_can_be_used_is_named_and_not_counted(
    make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(40)
    for path in folder.glob("kind1_*"):
        path.write_bytes(b"")
    assert main(["summary", str(folder), "--size", "16", "--on-bad-file", "skip"]) == 0
    printed = capsys.readouterr().out
    heading = "  1 class, with the numbers of training and validation images:\n    kind0 "
    assert heading in printed
    assert "\n  classes none of whose files can be used (1): kind1\n" in printed
    assert "    kind1 " not in printed


def test_images_that_do_not_decode_are_reported(
    make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(30)
    cut = folder / "kind1_7.jpg"
    cut.write_bytes(cut.read_bytes()[:-400])  # the header is complete
    assert main(["summary", str(folder), "--size", "16", "--image", "kind0_"]) == 0
    printed = capsys.readouterr()
    assert f"images that do not decode (1): {cut}: not decoded" in printed.out
    assert printed.err == ""


def test_bad_headers_are_listed_up_to_ten_and_another_image_is_traced(
    make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(40)
    for number in range(12):
        (folder / f"kind{number % 2}_{number}.jpg").write_bytes(b"")
    assert main(["summary", str(folder), "--size", "16", "--on-bad-file", "skip"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("bad file: ") == 10
    assert "bad files: 2 more" in printed.out
    assert "28 images: " in printed.out
    assert "Trace of one training image" in printed.out
    assert printed.err == ""


def test_a_command_that_lists_bad_files_still_shows_other_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):  # class names in the folders and, others, in the file names
        folder = tmp_path / ("cats" if number % 2 else "dogs")
        folder.mkdir(exist_ok=True)
        drawing(40, 50, seed=number).save(folder / f"breed{number % 3}_{number}.jpg")
    assert main(["summary", str(tmp_path), "--size", "16"]) == 0
    assert "warning: " in capsys.readouterr().err


def test_a_file_that_was_deleted_is_one_line(make_folder: Callable[..., Path]) -> None:
    train, _ = train_valid_datasets(make_folder(20))
    Path(train.paths[0]).unlink()
    lines = trace(train, 0, Preprocessing(size=(16, 16)), None, 0, "the test")
    with pytest.raises(FastpetsError, match=r"^stage 'reading .*': No such file or directory"):
        list(lines)
    nhwc = trace(train, 1, Preprocessing(size=(16, 16), layout="NHWC"), None, 0, "the test")
    assert "images (1, 16, 16, 3) float32, NHWC" in "\n".join(nhwc)


def test_an_out_that_cannot_be_written_is_one_line(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nowhere" / "x.png"
    assert main(["summary", str(make_folder(20)), "--size", "16", "--out", str(out)]) == 1
    assert capsys.readouterr().err.startswith(f"error: --out: {out}: No such file or directory, expected a place")

"""ImageDataset: labels from names, folders and tables, and splits; each error is one line that says what to do."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastpets import Loader
from fastpets.data import dataset as dataset_module
from fastpets.data import headers
from fastpets.data.dataset import ImageDataset, labels_from_names
from fastpets.data.labels import with_numbers
from fastpets.data.path_table import PathTable
from fastpets.data.random_splits import random_split
from fastpets.data.sources import from_csv, from_folder
from fastpets.data.splits import train_valid_datasets
from fastpets.errors import BadFileError, FastpetsError, InvalidArgumentError
from fastpets.utils.system import resolve_num_workers
from tests.folders import labelled, touch

LABELS = {"cats/img_1.jpg": "cats", "dogs/img_2.jpg": "dogs"}


def test_labels_are_what_the_pattern_finds_in_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "great_pyrenees_173.jpg", "Birman_1.JPEG", "sub/Birman_2.png", "wheaten terrier_é_3.gif")
    dataset = from_folder(tmp_path)
    assert dataset.classes == ("Birman", "great_pyrenees", "wheaten terrier_é")
    assert labelled(dataset)["great_pyrenees_173.jpg"] == "great_pyrenees"
    assert labelled(dataset)["Birman_2.png"] == "Birman"
    assert dataset.labels.dtype == np.int64
    assert list(dataset.paths) == sorted(dataset.paths)


def test_labels_are_the_names_of_the_folders_with_label_from_folder(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/2.jpg", "deep/er/dog/3.jpg")
    dataset = from_folder(tmp_path, label_from="folder")
    assert labelled(dataset) == {"1.jpg": "cat", "2.jpg": "cat", "3.jpg": "dog"}


@pytest.mark.parametrize("above", ["", "train/", "Validation/", "deep/er/"])
def test_auto_takes_class_folders_if_there_are_two(
    above: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    touch(tmp_path, *(above + name for name in LABELS))
    dataset = from_folder(tmp_path)
    assert labelled(dataset) == {"img_1.jpg": "cats", "img_2.jpg": "dogs"}
    assert dataset.label_from == "folder"
    assert not recwarn  # the file names would give one class


@pytest.mark.parametrize(
    "names",
    [
        ("cat_1.jpg", "dog_2.jpg"),
        ("train/cat_1.jpg", "valid/dog_2.jpg"),
        ("images/cat_1.jpg", "images/dog_2.jpg"),
        ("train/images/cat_1.jpg", "valid/images/dog_2.jpg"),
    ],
)
def test_auto_takes_file_names_if_there_are_no_two_class_folders(
    names: tuple[str, ...], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    dataset = from_folder(touch(tmp_path, *names))
    assert labelled(dataset) == {"cat_1.jpg": "cat", "dog_2.jpg": "dog"}
    assert dataset.label_from == "name"
    assert not recwarn


def test_auto_takes_file_names_if_a_pattern_is_given(tmp_path: Path) -> None:
    touch(tmp_path, "one/1-cat.jpg", "two/2-dog.jpg")
    dataset = from_folder(tmp_path, label_pattern=r"-(\w+)")
    assert dataset.classes == ("cat", "dog")


def test_auto_says_what_it_chose_if_both_readings_are_possible(tmp_path: Path) -> None:
    touch(tmp_path, "one/cat_1.jpg", "two/dog_2.jpg", "two/cat_3.jpg")
    with pytest.warns(UserWarning, match=r"names of its 2 class folders; pass label_from='name' for the 2 classes"):
        assert from_folder(tmp_path).classes == ("one", "two")
    touch(tmp_path, "cat_4.jpg")
    with pytest.warns(UserWarning, match=r"from the file names, since 1 of 4 images are .* label_from='folder'"):
        assert from_folder(tmp_path).classes == ("cat", "dog")


def test_auto_is_silent_if_both_readings_give_the_same_labels(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    dataset = from_folder(touch(tmp_path, "cat/cat_1.jpg", "dog/dog_2.jpg"))
    assert (dataset.classes, dataset.label_from) == (("cat", "dog"), "folder")
    assert not recwarn


def test_the_fingerprint_depends_on_paths_below_their_folder_and_on_labels(tmp_path: Path) -> None:
    one, moved, other = (touch(tmp_path / name, *LABELS) for name in ("one", "moved", "other"))
    fingerprint = from_folder(one).fingerprint
    assert from_folder(moved).fingerprint == fingerprint
    assert len(fingerprint) == 32
    (other / "dogs" / "img_2.jpg").rename(other / "dogs" / "img_3.jpg")
    dataset = from_folder(one)
    relabelled = ImageDataset(dataset.paths, dataset.labels[::-1].copy(), dataset.classes)
    fingerprints = {
        from_folder(other).fingerprint,
        relabelled.fingerprint,
        dataset.select(np.array([1, 0])).fingerprint,
    }
    assert len(fingerprints | {fingerprint}) == 4


def test_no_images_have_a_fingerprint() -> None:
    assert len(ImageDataset((), np.zeros(0, np.int64), ()).fingerprint) == 32


def test_files_without_an_image_suffix_are_ignored_and_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a_1.jpg", "a_1.mat", "notes.txt", ".hidden_1.jpg", ".cache/b_1.jpg")
    dataset = from_folder(tmp_path)
    assert [Path(path).name for path in dataset.paths] == ["a_1.jpg"]
    assert [Path(path).name for path in dataset.ignored_files] == ["a_1.mat", "notes.txt"]


def test_linked_files_and_folders_are_found(tmp_path: Path) -> None:
    touch(tmp_path / "far", "a_1.jpg", "b_2.jpg")
    folder = tmp_path / "here"
    folder.mkdir()
    touch(tmp_path / "else", "a_9.jpg")
    (folder / "a_9.jpg").symlink_to(tmp_path / "else" / "a_9.jpg")
    (folder / "linked").symlink_to(tmp_path / "far")
    assert len(from_folder(folder)) == 3


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ((), {}, r"no image among 0 files, expected .jpg"),
        (("a.txt",), {}, r"no image among 1 files"),
        (
            ("a_1.jpg", "b.jpg"),
            {},
            r"b.jpg: no label in the file name by label_pattern=.*1 of 2 images.*label_from='auto'",
        ),
        (("a_1.jpg", "b.jpg"), {"label_from": "name"}, r"b.jpg: no label .*1 of 2 images.*label_from='folder'"),
        (
            ("a/1.jpg", "a/2.jpg"),
            {},
            r"1.jpg: no label .*2 of 2 images.*label_from='auto'.* all images lie in one folder",
        ),
        (("a_1.jpg",), {"label_pattern": r"\d+"}, r"^label_pattern: .* no group, expected one in parentheses"),
        (("a_1.jpg",), {"label_pattern": r"(["}, r"^label_pattern: .*expected a regular expression"),
        (
            ("a_1.jpg",),
            {"label_from": "folder"},
            r"a_1.jpg: not in a class folder \(1 of 1 images; .*from='name'",
        ),
        (("train/1.jpg", "a/2.jpg"), {"label_from": "folder"}, r"train/1.jpg: not in a class folder \(1 of 2 images"),
    ],
)
def test_a_folder_without_images_or_labels_is_rejected_in_one_line(
    names: tuple[str, ...], settings: dict, message: str, tmp_path: Path
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(FastpetsError, match=message) as error:
        from_folder(tmp_path, **settings)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FastpetsError, match=r"nowhere: nothing there, expected a folder"):
        from_folder(tmp_path / "nowhere")


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_a_table_gives_files_labels_and_split(tmp_path: Path) -> None:
    path = table(tmp_path, 'label,file,split\ncat,b.jpg,train\ndog,"a, 1.jpg",valid\ncat,c.jpg,test\ndog,d.jpg,train\n')
    dataset = from_csv(path)
    assert labelled(dataset) == {"a, 1.jpg": "dog", "b.jpg": "cat", "c.jpg": "cat", "d.jpg": "dog"}
    assert Path(dataset.paths[0]).parent == tmp_path
    assert dataset.label_from == "table"
    train, valid = train_valid_datasets(None, labels=path, on_bad_file="skip")
    assert labelled(train) == {"b.jpg": "cat", "d.jpg": "dog"}
    assert labelled(valid) == {"a, 1.jpg": "dog"}
    assert train.classes == valid.classes == ("cat", "dog")


def test_a_table_without_a_split_is_split_at_random(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\n" + "".join(f"{n}.jpg,{n % 2}\n" for n in range(20)))
    train, valid = train_valid_datasets(tmp_path / "elsewhere", labels=path, on_bad_file="skip")
    assert (len(train), len(valid)) == (16, 4)
    assert Path(train.paths[0]).parent.name == "elsewhere"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n", "columns name, label, expected file and label"),
        ("", "columns none, expected file and label"),
        ("file,label\n", "no rows"),
        ("file,label\na.jpg,cat\nb.jpg,\n", "line 3: label '' of .*/b.jpg, expected no empty cell; fill it in"),
        (
            "file,label\na.jpg,1\nb.jpg,2\nc.jpg,x\n",
            "line 4: label 'x' of .*/c.jpg, expected a whole number like 2 of the 3",
        ),
        ("file,label\na.jpg,cat\nb.jpg,cat,dog\n", "line 3: 3 cells, expected 2 like the header: 'b.jpg,cat,dog'"),
        ("file,label,split\na.jpg,cat,train\n", "split: found train, expected train and one of valid and test"),
        ('file,label\n\n,\n"a\nb.jpg",cat\n\nc.jpg,\n', "line 7: label '' of .*/c.jpg"),
        ("file,label,split\na.jpg,cat,train\nb.jpg,cat,valid\nc.jpg,cat,\n", "line 4: split '', expected one of train"),
        ("file,label,split\na.jpg,cat,train\nb.jpg,cat,vald\n", "line 3: split 'vald', expected one of train, "),
        ("file,label\n" + "a" * 200_000, "line 2: field larger than field limit"),
        ("file" * 50_000 + ",label\n", "field larger than field limit"),
    ],
)
def test_a_faulty_table_is_rejected_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = table(tmp_path, text)
    with pytest.raises(FastpetsError, match=message):
        train_valid_datasets(None, labels=path, on_bad_file="skip")
    path.unlink()
    with pytest.raises(FastpetsError, match=r"labels.csv: No such file"):
        train_valid_datasets(None, labels=path, on_bad_file="skip")


def test_a_random_fifth_validates_and_depends_on_the_seed_alone() -> None:
    labels = np.arange(25) % 2
    train, valid = random_split(labels, seed=42)
    assert len(valid) == 5
    assert sorted([*train, *valid]) == list(range(25))
    assert (random_split(labels, seed=42)[1] == valid).all()
    assert (random_split(labels, seed=43)[1] != valid).any()


def test_the_same_files_in_another_folder_are_split_alike(tmp_path: Path) -> None:
    chosen = []
    for name in ("one", "two"):
        touch(tmp_path / name, *(f"a_{number}.jpg" for number in range(20)))
        chosen.append(set(labelled(train_valid_datasets(tmp_path / name, on_bad_file="skip")[1])))
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("valid_name", ["valid", "val", "test", "Validation"])
def test_folders_named_train_and_valid_are_the_split(valid_name: str, tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", f"{valid_name}/cat/3.jpg")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train, valid = train_valid_datasets(tmp_path, label_from="folder", on_bad_file="skip")
    assert ["the 1 test images validate" in str(warning.message) for warning in caught] == [True] * (
        valid_name == "test"
    )
    assert set(labelled(train)) == {"1.jpg", "2.jpg"}
    assert labelled(valid) == {"3.jpg": "cat"}
    assert valid.classes == ("cat", "dog")


def test_of_valid_and_test_folders_only_valid_validates(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "valid/cat/2.jpg", "test/cat/3.jpg")
    train, valid = train_valid_datasets(tmp_path, label_from="folder", on_bad_file="skip")
    assert set(labelled(train)) | set(labelled(valid)) == {"1.jpg", "2.jpg"}


def test_images_outside_the_folders_of_the_split_are_counted_in_a_warning(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "valid/cat/2.jpg", "test/cat/3.jpg", "extra/cat/4.jpg", "5.jpg")
    with pytest.warns(
        UserWarning, match=r"2 of 5 images are not used, since they are in none of the folders"
    ) as caught:
        train, valid = train_valid_datasets(tmp_path, label_from="none", on_bad_file="skip")
    assert caught[0].filename == __file__
    assert (len(train), len(valid)) == (1, 1)


@pytest.mark.parametrize("as_labels", [False, True])
def test_the_column_split_of_a_csv_is_the_split_else_the_folders_beside_it(as_labels: bool, tmp_path: Path) -> None:
    rows = [("train/1.jpg", "cat", "valid"), ("train/2.jpg", "cat", "train"), ("valid/3.jpg", "cat", "Train")]
    path = tmp_path / "labels.csv"
    source = {"source": None, "labels": path} if as_labels else {"source": path}
    path.write_text("file,label,split\n" + "".join(f"{','.join(row)}\n" for row in rows))
    _, valid = train_valid_datasets(**source, on_bad_file="skip")
    assert set(labelled(valid)) == {"1.jpg"}
    path.write_text("file,label\n" + "".join(f"{','.join(row[:2])}\n" for row in rows))
    _, valid = train_valid_datasets(**source, on_bad_file="skip")
    assert set(labelled(valid)) == {"3.jpg"}


def test_a_table_of_labels_needs_a_folder_as_source(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\na.jpg,cat\n")
    with pytest.raises(InvalidArgumentError, match=r"^source: list, expected None or the folder of the files"):
        train_valid_datasets(["a.jpg"], labels=path)


@pytest.mark.parametrize(("num_workers", "threads"), [(None, resolve_num_workers(None)), (0, 1), (3, 3)])
def test_headers_are_scanned_by_the_given_number_of_threads(
    num_workers: int | None, threads: int, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    scan = dataset_module.scan_headers
    monkeypatch.setattr(
        dataset_module, "scan_headers", lambda *arguments: (found.append(arguments[2]), scan(*arguments))[1]
    )
    train_valid_datasets(make_folder(6), num_workers=num_workers)
    assert found == [threads]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1.0]), r"labels: .*0.0\)?, expected whole numbers from 0, or names"),
        (np.zeros((2, 2), int), r"labels: an array of shape \(2, 2\), expected one label for each image"),
        ([[0], [0, 1]], "labels: .*, expected one whole number for each image"),
        (np.array([0, 2**64 - 1], np.uint64), "labels: .*18446744073709551615.*, expected whole numbers"),
        ([0, 2**70], "labels: 1180591620717411303424, expected whole numbers"),
        ([0, None], "labels: None, expected whole numbers"),
        ([0, -2], "labels: -2, expected numbers from 0, or -1 for an image without a label"),
        ([0, 2], "labels: 2 with 2 classes, expected less than that number"),
        ([0], "labels: 1 for 2 paths, expected one for each path|expected one for each"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        ImageDataset(["a.jpg", "b.jpg"], labels, ("cat", "dog"))


def test_two_classes_of_the_same_name_are_refused_and_those_of_libraries_are_numbered() -> None:
    names = ("crane", "cat", "crane", "crane (2)", "crane")
    with pytest.raises(InvalidArgumentError, match=r"^classes: 'crane' more than once, expected each name once"):
        ImageDataset(["a.jpg"], [0], names)
    numbered = with_numbers(["a.jpg"], [2], names).classes
    assert numbered == ("crane", "cat", "crane (3)", "crane (2)", "crane (4)")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint64, np.int16])
def test_labels_of_any_integer_type_are_stored_as_int64(dtype: type) -> None:
    dataset = ImageDataset(["/images/a.jpg", "/images/b.jpg"], np.array([1, 0], dtype), ("cat", "dog"))
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.root == "/images"
    assert dataset.paths == PathTable(["/images/a.jpg", "/images/b.jpg"])


def test_classes_are_sorted_as_numbers_if_all_are_whole_numbers() -> None:
    for names in (["10", "1", "-2", "01"], ["01", "1", "10", "-2"]):  # classes do not depend on the order of the files
        assert labels_from_names(names)[1] == ("-2", "01", "1", "10")
    assert labels_from_names(["--5", "10", "9"])[1] == ("--5", "10", "9")
    assert labels_from_names([" 10", "9 ", "-2"])[1] == ("-2", "9 ", " 10")
    for space in "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2003\u2028":  # names, which sort as strings
        assert labels_from_names([f"2{space}", "10"])[1] == ("10", f"2{space}")


def test_too_few_images_to_split_are_rejected(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(FastpetsError, match="4 images, expected at least 5"):
        train_valid_datasets(make_folder(4))


def test_headers_are_scanned_once_for_both_parts(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_header = headers.read_header
    monkeypatch.setattr(headers, "read_header", lambda path: (read.append(path), read_header(path))[1])
    train, valid = train_valid_datasets(make_folder(20))
    assert len(read) == 20
    for part in (train, valid):
        assert part.headers is not None
        assert part.headers.paths is part.paths
        assert part.scanned(1) is part
        assert part.select(np.arange(2)).headers is not None
        Loader(part, size=16, batch_size=4)
    assert len(read) == 20


def test_all_bad_files_of_both_parts_are_named_at_once(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    train, valid = train_valid_datasets(folder)
    bad = [train.paths[0], train.paths[3], valid.paths[1]]
    for path in bad:
        Path(path).write_bytes(b"")
    with pytest.raises(BadFileError) as error:
        train_valid_datasets(folder)
    assert list(error.value.problems) == bad
    with pytest.raises(BadFileError) as error:
        train_valid_datasets(folder, max_pixels=100)
    assert len(error.value.problems) == 20
    assert len(train_valid_datasets(folder, on_bad_file="skip")[0]) == 16

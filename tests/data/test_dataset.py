"""ImageDataset: labels from names, folders and tables, splits, and one clear line for each way to get it wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import from_csv, from_folder
from fastpets.data.splits import split, split_by_names
from fastpets.errors import FastpetsError
from fastpets.loading.opening import open_datasets


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def labelled(dataset: ImageDataset) -> dict[str, str]:
    return {Path(path).name: dataset.classes[label] for path, label in zip(dataset.paths, dataset.labels, strict=True)}


def test_labels_are_what_the_pattern_finds_in_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "great_pyrenees_173.jpg", "Birman_1.JPEG", "sub/Birman_2.png", "wheaten terrier_é_3.gif")
    dataset = from_folder(tmp_path)
    assert dataset.classes == ("Birman", "great_pyrenees", "wheaten terrier_é")
    assert labelled(dataset)["great_pyrenees_173.jpg"] == "great_pyrenees"
    assert labelled(dataset)["Birman_2.png"] == "Birman"
    assert dataset.labels.dtype == np.int64
    assert list(dataset.paths) == sorted(dataset.paths)


def test_labels_are_the_folders_names_on_request(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/2.jpg", "deep/er/dog/3.jpg")
    dataset = from_folder(tmp_path, label_from="folder")
    assert labelled(dataset) == {"1.jpg": "cat", "2.jpg": "cat", "3.jpg": "dog"}


def test_what_is_no_image_by_its_name_is_left_out_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "a_1.jpg", "a_1.mat", "notes.txt", ".hidden_1.jpg", ".cache/b_1.jpg")
    dataset = from_folder(tmp_path)
    assert [Path(path).name for path in dataset.paths] == ["a_1.jpg"]
    assert [Path(path).name for path in dataset.left_out] == ["a_1.mat", "notes.txt"]


def test_linked_files_and_folders_are_found(tmp_path: Path) -> None:
    touch(tmp_path / "far", "a_1.jpg", "b_2.jpg")
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "a_9.jpg").symlink_to(tmp_path / "far" / "a_1.jpg")
    (folder / "linked").symlink_to(tmp_path / "far")
    assert len(from_folder(folder)) == 3


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ((), {}, r"0 files but no image in it, expected .jpg"),
        (("a.txt",), {}, r"1 files but no image"),
        (("a_1.jpg", "b.jpg"), {}, r"b.jpg: the name does not match .*1 of 2 images.*--label-from folder"),
        (("a_1.jpg",), {"label_pattern": r"\d+"}, r"no group, expected one in parentheses"),
        (("a_1.jpg",), {"label_pattern": r"(["}, r"expected a regular expression"),
        (("a_1.jpg",), {"label_from": "folder"}, r"a_1.jpg: in no folder of its class \(1 of 1"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(
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
    dataset, names = from_csv(path)
    assert labelled(dataset) == {"a, 1.jpg": "dog", "b.jpg": "cat", "c.jpg": "cat", "d.jpg": "dog"}
    assert Path(dataset.paths[0]).parent == tmp_path
    assert names == ["train", "valid", "test", "train"]
    train, valid = open_datasets(None, labels=path, on_bad_file="skip")
    assert labelled(train) == {"b.jpg": "cat", "d.jpg": "dog"}
    assert labelled(valid) == {"a, 1.jpg": "dog"}
    assert train.classes == valid.classes == ("cat", "dog")


def test_a_table_without_a_split_is_split_at_random(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\n" + "".join(f"{n}.jpg,{n % 2}\n" for n in range(20)))
    train, valid = open_datasets(tmp_path / "elsewhere", labels=path, on_bad_file="skip")
    assert (len(train), len(valid)) == (16, 4)
    assert Path(train.paths[0]).parent.name == "elsewhere"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n", "columns name, label, expected file, label"),
        ("", "columns none, expected file, label"),
        ("file,label\n", "no rows"),
        ("file,label\na.jpg,cat\nb.jpg,\n", "line 3: 'b.jpg' has no file or no label"),
        ("file,label,split\na.jpg,cat,train\n", "found train, expected train and one of valid"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = table(tmp_path, text)
    with pytest.raises(FastpetsError, match=message):
        open_datasets(None, labels=path, on_bad_file="skip")
    path.unlink()
    with pytest.raises(FastpetsError, match=r"labels.csv: No such file"):
        open_datasets(None, labels=path, on_bad_file="skip")


def test_a_random_fifth_validates_the_same_one_for_the_same_seed(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(25)
    dataset = from_folder(folder)
    train, valid = split(dataset, folder=folder, seed=42)
    assert len(valid) == 5
    assert sorted([*train.paths, *valid.paths]) == list(dataset.paths)
    assert split(dataset, folder=folder, seed=42)[1].paths == valid.paths
    assert split(dataset, folder=folder, seed=43)[1].paths != valid.paths


def test_a_split_keeps_its_choice_among_sorted_items_whoever_lists_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        touch(tmp_path / name, *(f"a_{number}.jpg" for number in range(20)))
    chosen = [split(from_folder(tmp_path / name), folder=tmp_path / name)[1].paths for name in ("one", "two")]
    assert [Path(path).name for path in chosen[0]] == [Path(path).name for path in chosen[1]]


@pytest.mark.parametrize("valid_name", ["valid", "val", "test", "Validation"])
def test_folders_named_train_and_valid_are_the_split(valid_name: str, tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", f"{valid_name}/cat/3.jpg")
    train, valid = open_datasets(tmp_path, label_from="folder", on_bad_file="skip")
    assert set(labelled(train)) == {"1.jpg", "2.jpg"}
    assert labelled(valid) == {"3.jpg": "cat"}
    assert valid.classes == ("cat", "dog")


def test_of_valid_and_test_folders_only_valid_validates(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "valid/cat/2.jpg", "test/cat/3.jpg")
    train, valid = open_datasets(tmp_path, label_from="folder", on_bad_file="skip")
    assert set(labelled(train)) | set(labelled(valid)) == {"1.jpg", "2.jpg"}


def test_too_few_images_to_split_are_refused(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(FastpetsError, match="4 images, expected at least 5"):
        open_datasets(make_folder(4))


def test_split_names_that_are_none_are_listed(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(2))
    with pytest.raises(FastpetsError, match="found a, b, expected train and one of valid, val, validation, test"):
        split_by_names(dataset, ["a", "b"])

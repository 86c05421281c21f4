"""Parts of a data set: classes come from the images that are used, and test images are kept aside."""

import os
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastpets
from fastpets.cli import main
from fastpets.data import storage
from fastpets.data.dataset import ImageDataset, similar_names
from fastpets.data.sources import from_folder
from fastpets.data.splits import held_out_dataset, parts_of_files, train_valid_datasets
from fastpets.errors import FastpetsError
from tests.folders import labelled, touch
from tests.images import drawing

TRAIN_VALID = ("train/cat/1.jpg", "train/dog/2.jpg", "valid/cat/3.jpg", "valid/dog/4.jpg")


def split(source: Any, **settings: Any) -> tuple[ImageDataset, ImageDataset]:
    return train_valid_datasets(source, on_bad_file="skip", **settings)


@pytest.mark.parametrize("label_from", ["auto", "folder"])
@pytest.mark.parametrize(
    "others",
    [
        ("test/5.jpg", "test/6.jpg"),
        ("test/bird/5.jpg", "Testing/fish/6.jpg"),
        ("unlabeled/5.jpg", "extra/bird/6.jpg", "7.jpg"),
        ("test/5.jpg", "unlabelled/deep/er/6.jpg", "valid_7.jpg"),
    ],
)
def test_a_third_folder_adds_no_class_and_no_error(others: tuple[str, ...], label_from: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = split(touch(tmp_path / "two", *TRAIN_VALID), label_from=label_from)
        found = split(touch(tmp_path / "three", *TRAIN_VALID, *others), label_from=label_from)
    assert [labelled(part) for part in found] == [labelled(part) for part in expected]
    assert found[0].classes == found[1].classes == ("cat", "dog")
    assert found[0].fingerprint == expected[0].fingerprint


def test_the_images_of_a_third_folder_are_not_even_read(tmp_path: Path) -> None:
    touch(tmp_path, "test/cat/9.jpg")  # empty, which is a bad file
    for number, name in enumerate(TRAIN_VALID):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        drawing(40, 50, seed=number).save(tmp_path / name)
    train, valid = train_valid_datasets(tmp_path)
    assert (len(train), len(valid)) == (2, 2)


def test_unused_rows_of_a_table_add_no_class_and_need_no_label(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,label,split\n1.jpg,cat,train\n2.jpg,cat,valid\n3.jpg,,test\n4.jpg,bird,test\n")
    train, valid = split(path)
    assert (labelled(train), labelled(valid), train.classes) == ({"1.jpg": "cat"}, {"2.jpg": "cat"}, ("cat",))
    with pytest.raises(FastpetsError, match=r"line 4: label '' of .*/3.jpg"):
        held_out_dataset(path, train)


def test_numbers_among_unused_rows_do_not_make_names_suspicious(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = [f"{number}.jpg,{number},test" for number in range(5)] + ["6.jpg,cat,train", "7.jpg,cat,valid"]
    path.write_text("\n".join(["file,label,split", *rows]) + "\n")
    assert split(path)[0].classes == ("cat",)


def test_test_images_are_kept_aside_from_a_random_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{'cat' if n % 2 else 'dog'}/{n}.jpg" for n in range(20)), "test/99.jpg", "test/98.jpg")
    train, valid = split(tmp_path)
    assert (len(train), len(valid)) == (16, 4)
    assert not {"98.jpg", "99.jpg"} & {*labelled(train), *labelled(valid)}


def test_a_training_folder_alone_is_split_at_random_without_the_other_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{'cat' if n % 2 else 'dog'}/{n}.jpg" for n in range(20)), "unlabelled/99.jpg")
    with pytest.warns(UserWarning, match="1 of 21 images are not used"):
        train, valid = split(tmp_path)
    assert (len(train), len(valid), train.classes) == (16, 4, ("cat", "dog"))


def test_a_test_folder_alone_is_a_data_set(tmp_path: Path) -> None:
    train, valid = split(touch(tmp_path, *(f"test/cat_{n}.jpg" for n in range(10))))
    assert (len(train), len(valid)) == (8, 2)


def test_test_images_validate_without_others_which_a_warning_says(tmp_path: Path) -> None:
    names = [name.replace("valid", "test") for name in TRAIN_VALID]
    path = tmp_path / "labels.csv"
    path.write_text("file,label,split\n" + "".join(f"{name},x,{name.split('/')[0]}\n" for name in names))
    for source in (touch(tmp_path, *names), path):
        with pytest.warns(UserWarning, match="the 2 test images validate, since there are no validation images"):
            train, valid = split(source)
        assert set(labelled(valid)) == {"3.jpg", "4.jpg"}
        with (
            pytest.warns(UserWarning, match="test images validate"),
            pytest.raises(FastpetsError, match=r"^evaluate_test: no test images"),
        ):
            held_out_dataset(source, train)


def test_every_name_of_the_validation_part_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "training/cat/2.jpg", "val/cat/3.jpg", "valid/cat/4.jpg", "Validation/cat/5.jpg")
    train, valid = split(tmp_path, label_from="folder")
    assert (set(labelled(train)), set(labelled(valid))) == ({"1.jpg", "2.jpg"}, {"3.jpg", "4.jpg", "5.jpg"})


@pytest.mark.parametrize("names", [("test/dog/5.jpg", "test/cat/6.jpg"), ("test/cat/6.jpg",)])
def test_held_out_images_have_the_trained_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *TRAIN_VALID, *names)
    train, _ = split(tmp_path)
    test = held_out_dataset(tmp_path, train, on_bad_file="skip")
    assert labelled(test) == {Path(name).name: name.split("/")[1] for name in names}
    assert test.classes == train.classes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test/bird/5.jpg", "evaluate_test: .*/5.jpg has class 'bird', which has no training images"),
        ("test/5.jpg", r"5.jpg: not in a class folder \(1 of 1 images"),
    ],
)
def test_held_out_images_that_cannot_be_evaluated_are_named(name: str, message: str, tmp_path: Path) -> None:
    train, _ = split(touch(tmp_path, *TRAIN_VALID, name))
    with pytest.raises(FastpetsError, match=message):
        held_out_dataset(tmp_path, train, on_bad_file="skip")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["cat", "Cat", "dog"], "'cat' and 'Cat'"),
        (["cat", "cat ", "c\u00a0at"], "'cat' and 'cat ' and 'c\\xa0at'"),
        (["caf\u00e9", "cafe\u0301"], "'caf\\xe9' and 'cafe\\u0301'"),
        (["\ufb01sh", "fish"], "'\ufb01sh' and 'fish'"),
        (["cat", "c\u200bat"], "'cat' and 'c\\u200bat'"),
        (["01", "1", "2"], "'01' and '1'"),
        (["Stra\u00dfe", "STRASSE"], "'Stra\u00dfe' and 'STRASSE'"),
        (["a", "b", "1", "-1", "\udce8", "\udce9", "cat dog", "cat_dog"], None),
    ],
)
def test_names_that_are_equal_up_to_spelling_are_found(names: list[str], shown: str | None) -> None:
    found = similar_names(names)
    assert (found is None) == (shown is None)
    assert shown is None or f"Unicode form: {shown}; merge" in str(found)


def test_similar_classes_are_named_in_a_warning_before_training(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(20)
    rows = "".join(f"{path.name},{'Pug' if n % 2 else 'pug'}\n" for n, path in enumerate(sorted(folder.iterdir())))
    (folder / "labels.csv").write_text("file,label\n" + rows)
    with pytest.warns(UserWarning, match="classes that differ only in case, .*: 'Pug' and 'pug'; merge them"):
        fastpets.loaders(folder / "labels.csv", size=16)
    # Also if the spelling leaves a class without training images, which is an error.
    names = ["train/caf\u00e9/1.jpg", "train/dog/2.jpg", "valid/cafe\u0301/3.jpg"]
    with (
        pytest.warns(UserWarning, match=r"'cafe\\u0301' and 'caf\\xe9'"),
        pytest.raises(FastpetsError, match=r"classes with validation images only \(1 of 3\)"),
    ):
        split(touch(tmp_path / "forms", *names))


def test_unlabelled_validation_images_are_not_a_class() -> None:
    dataset = ImageDataset([f"/x/{n}.jpg" for n in range(10)], np.array([0] * 5 + [-1] * 5), ("cat",))
    assert split(dataset, split_seed=3)[1].classes == ("cat",)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train/0000.tar", "test/0000.tar", "validation/0000.tar"], ([0], [2], [1])),  # converted branches of the hub
        (["train-0.tar", "val-0.tar", "extra-0.tar"], ([0], [1], [])),
        (["pets_test.tar", "pets_Train0001.tar"], ([1], [0], [])),
        (["partial-train/0.tar", "partial-test/0.tar", "train/valid.tar"], ([0], [2], [1])),
        (["a/test.tar", "a/shard.tar"], ([1], None, [0])),
        (["test/0.tar", "test/1.tar"], ([0, 1], None, [])),  # the folder of all shards is no part
    ],
)
def test_the_names_of_files_and_of_their_folders_are_the_split(
    files: list[str], expected: tuple[list[int], list[int] | None, list[int]]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = parts_of_files(files, "here")
    assert tuple(None if part is None else part.tolist() for part in found) == expected


def test_tar_shards_named_train_and_test_are_the_split(tmp_path: Path) -> None:
    shards = dict.fromkeys(("train-0", "train-1", "valid-0", "test-0"), ("cat_1.jpg", "dog_2.jpg"))
    for name, images in {**shards, "extra-0": ("ant_3.jpg",)}.items():
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for image in images:
                tar.add(touch(tmp_path / "images", image) / image, image)
    with pytest.warns(UserWarning, match="1 of 9 images are not used, since they are in none of the files"):
        train, valid = split(f"{tmp_path}/*.tar")
    assert train.classes == valid.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert [storage.container(path)[-11:] for path in train.paths] == ["train-0.tar"] * 2 + ["train-1.tar"] * 2
    assert [storage.container(path)[-11:] for path in valid.paths] == ["valid-0.tar"] * 2
    test = held_out_dataset(f"{tmp_path}/{{train,valid,test}}*.tar", train, on_bad_file="skip")
    assert {storage.container(path)[-10:] for path in test.paths} == {"test-0.tar"}


def test_links_give_each_image_once(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    (tmp_path / "kitten").symlink_to("cat")  # to a sibling
    (tmp_path / "dog" / "up").symlink_to("..")  # back
    (tmp_path / "dog" / "4.jpg").symlink_to("../cat/1.jpg")
    (tmp_path / "apes").symlink_to(tmp_path / "dog")
    dataset = from_folder(tmp_path)
    assert labelled(dataset) == {"1.jpg": "cat", "2.jpg": "cat", "3.jpg": "dog"}
    assert [os.path.realpath(path) for path in dataset.paths] == list(dataset.paths)


def test_a_split_made_of_links_to_another_folder_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "all/cat/1.jpg", "all/cat/2.jpg", "all/dog/3.jpg", "all/dog/4.jpg")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cat").symlink_to("../all/cat")
    for name in ("train/dog/3.jpg", "valid/dog/4.jpg", "valid/dog/5.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(f"../../all/dog/{'34'[name > 'valid']}.jpg")
    with pytest.warns(UserWarning, match="4 of 9 images are not used"):
        train, valid = split(tmp_path)
    assert labelled(train) == {"1.jpg": "cat", "2.jpg": "cat", "3.jpg": "dog"}
    assert len(valid) == 1  # 4.jpg and 5.jpg lead to the same image


def test_a_validation_folder_that_is_a_link_to_the_training_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg")
    (tmp_path / "valid").symlink_to("train")
    with pytest.raises(FastpetsError, match="links to the same images in train and valid"):
        split(tmp_path)


def test_the_trained_model_is_evaluated_on_test_images(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(24)
    for number, path in enumerate(sorted(folder.iterdir())):
        part = folder / ("train", "train", "valid", "test")[number % 4]
        part.mkdir(exist_ok=True)
        path.rename(part / path.name)
    flags = ["--data", str(folder), "--arch", "squeezenet1_1", "--weights", "none", "--size", "32", "--batch-size", "4"]
    flags += ["--epochs", "1", "--device", "cpu"]
    assert main(["train", *flags, "--evaluate-test", "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    assert "12 training images, 6 validation images, 2 classes" in printed.out
    assert "6 test images, for the evaluation after training" in printed.out
    run = fastpets.load(tmp_path / "run")
    test = run.loader(folder / "test", label_from="name")
    probabilities = [run.model(images).softmax(1) for images, _ in test]
    wrong = sum((p.argmax(1) != labels).sum().item() for p, (_, labels) in zip(probabilities, test, strict=True))
    assert f"error_rate {wrong / 6:.6f}" in printed.out.split("test images: ")[1]
    header, values = (tmp_path / "run" / "test_metrics.csv").read_text().split()
    assert header.startswith("test_loss,error_rate")
    assert float(values.split(",")[1]) == pytest.approx(wrong / 6)
    # Later, too, without training again; and only if there are such images.
    (tmp_path / "run" / "test_metrics.csv").unlink()
    assert main(["train", "--resume", str(tmp_path / "run"), "--evaluate-test"]) == 0
    assert (tmp_path / "run" / "test_metrics.csv").read_text().split() == [header, values]
    (folder / "test").rename(folder / "other")
    assert main(["train", *flags, "--evaluate-test", "--out", str(tmp_path / "run2")]) == 1
    assert "error: --evaluate-test: no test images" in capsys.readouterr().err

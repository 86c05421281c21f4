"""All forms of a Loader's source give the same dataset; anything else is rejected in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import DatasetFolder, ImageFolder, OxfordIIITPet
from torchvision.transforms import v2

from fastpets import FastpetsError, InvalidArgumentError, Loader
from fastpets.data.sources import as_dataset, from_folder
from fastpets.data.splits import train_valid_datasets
from tests.epochs import pixels_by_id, same
from tests.folders import touch
from tests.images import drawing


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    folder = tmp_path / "classes"
    for number in range(6):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(40 + number, 50).save(path)
    return folder


def sources(folder: Path) -> dict[str, Any]:
    """The same six images in every form."""
    dataset = from_folder(folder, label_from="folder")
    (folder.parent / "table.csv").write_text(
        "file,label\n"
        + "".join(
            f"{path},{dataset.classes[label]}\n" for path, label in zip(dataset.paths, dataset.labels, strict=True)
        )
    )
    names = [dataset.classes[label] for label in dataset.labels]
    image_folder = ImageFolder(folder)
    return {
        "ImageDataset": dataset,
        "CSV": folder.parent / "table.csv",
        "pairs of names": list(zip(dataset.paths, names, strict=True)),
        "pairs of numbers": [
            (Path(path), int(label)) for path, label in zip(dataset.paths, dataset.labels, strict=True)
        ],
        "ImageFolder": image_folder,
        "DatasetFolder": DatasetFolder(str(folder), loader=str, extensions=(".jpg",)),
        "Subset": Subset(image_folder, range(6)),
    }


@pytest.mark.parametrize(
    "form", ["ImageDataset", "CSV", "pairs of names", "pairs of numbers", "ImageFolder", "DatasetFolder", "Subset"]
)
def test_every_form_of_source_gives_the_same_batches(class_folders: Path, form: str) -> None:
    expected = Loader(class_folders, label_from="folder", size=16)
    found = Loader(sources(class_folders)[form], size=16)
    assert found.dataset.labels.tolist() == expected.dataset.labels.tolist()
    assert found.classes == (("0", "1") if form == "pairs of numbers" else ("cat", "dog"))
    assert same(pixels_by_id(found), pixels_by_id(expected))


def test_torchvisions_oxford_pets_is_a_source(tmp_path: Path) -> None:
    base = tmp_path / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations").mkdir()
    lines = []
    for number, (name, label) in enumerate([("Abyssinian", 1), ("beagle", 2), ("Abyssinian", 1)]):
        drawing(40, 50, seed=number).save(base / "images" / f"{name}_{number}.jpg")
        lines.append(f"{name}_{number} {label} 1 1")
    (base / "annotations" / "trainval.txt").write_text("\n".join(lines) + "\n")
    loader = Loader(OxfordIIITPet(tmp_path), size=16)
    assert loader.classes == ("Abyssinian", "Beagle")
    assert loader.dataset.labels.tolist() == [0, 1, 0]
    assert len(pixels_by_id(loader)) == 3
    with pytest.raises(FastpetsError, match=r"OxfordIIITPet with target_types \['segmentation'\], expected 'category'"):
        Loader(OxfordIIITPet(tmp_path, target_types="segmentation"))


def test_a_torchvision_transform_is_unused_with_a_warning_and_the_target_transform_is_used(class_folders: Path) -> None:
    flipped = ImageFolder(class_folders, transform=v2.RandomHorizontalFlip(), target_transform=lambda label: 1 - label)
    with pytest.warns(UserWarning, match="the transform of this ImageFolder is not used") as caught:
        dataset = Loader(flipped, size=16).dataset
    assert caught[0].filename == __file__
    assert dataset.labels.tolist() == [1, 1, 1, 0, 0, 0]


def test_the_synonyms_that_torchvisions_imagenet_has_for_a_class_are_its_name(class_folders: Path) -> None:
    source = ImageFolder(class_folders)
    source.classes = [("crane", "bird"), ("crane",)]
    assert as_dataset(source).classes == ("crane, bird", "crane")
    source.classes = [("crane",), ("crane",)]
    assert as_dataset(source).classes == ("crane", "crane (2)")


def test_images_without_labels_load_with_labels_of_minus_1(class_folders: Path) -> None:
    paths = list(from_folder(class_folders, label_from="none").paths)
    for loader in (Loader(paths, size=16), Loader(class_folders, label_from="none", size=16)):
        (images, labels), *_ = loader
        assert labels.tolist() == [-1] * 6
        assert loader.classes == ()
        assert same(pixels_by_id(loader), pixels_by_id(Loader(class_folders, label_from="folder", size=16)))
        assert images.shape == (6, 3, 16, 16)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (TensorDataset(torch.zeros(3)), "source: TensorDataset, expected a folder, a CSV, an ImageDataset"),
        ([("a.jpg", 0, 1)], r"source: \('a.jpg', 0, 1\) in the list, expected \(path, label\)"),
        ([("a.jpg", 0), ("b.jpg", "dog")], "labels: 'dog', expected whole numbers from 0, or names, for all"),
        ([("a.jpg", 0), ("b.jpg", 1.5)], "labels: 1.5, expected"),
        ([(0, "a.jpg")], r"source: \(0, 'a.jpg'\) in the list, expected \(path, label\)"),
        ([("a.jpg", -2)], "labels: -2, expected numbers from 0, or -1"),
        (7, "source: int, expected a folder"),
    ],
)
def test_other_sources_are_rejected(source: Any, message: str) -> None:
    with pytest.raises(FastpetsError, match=message):
        as_dataset(source)


def test_label_from_is_one_of_its_choices(class_folders: Path) -> None:
    for source in (class_folders, [], sources(class_folders)["CSV"]):
        for call in (as_dataset, train_valid_datasets):
            with pytest.raises(InvalidArgumentError, match=r"^label_from: 'names', expected one of auto, name, folder"):
                call(source, label_from="names")
    with pytest.raises(InvalidArgumentError, match=r"^label_from: 'names', expected"):
        from_folder(class_folders, label_from="names")


def test_boolean_labels_are_0_and_1() -> None:
    dataset = as_dataset([("a.jpg", True), ("b.jpg", False)])
    assert (dataset.labels.tolist(), dataset.classes) == ([1, 0], ("0", "1"))


def test_a_csv_without_labels_is_read_with_label_from_none(class_folders: Path) -> None:
    path = class_folders / "table.csv"
    path.write_text("file\ncat/0.jpg\ndog/1.jpg\n")
    dataset = as_dataset(path, label_from="none")
    assert list(dataset.paths) == [f"{class_folders}/cat/0.jpg", f"{class_folders}/dog/1.jpg"]
    assert dataset.labels.tolist() == [-1, -1]
    assert (dataset.classes, dataset.label_from) == ((), "none")
    with pytest.raises(FastpetsError, match="columns file, expected file and label"):
        as_dataset(path)
    path.write_text("file,label\ncat/0.jpg,cat\n,dog\n")
    with pytest.raises(FastpetsError, match="line 3: file '', expected no empty cell"):
        as_dataset(path, label_from="none")


def test_warnings_name_the_users_line(tmp_path: Path) -> None:
    for name in ("one/cat_1.jpg", "two/dog_2.jpg", "two/cat_3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        drawing(40, 50).save(tmp_path / name)
    for call in (from_folder, as_dataset, Loader):
        with pytest.warns(UserWarning, match="names of its 2 class folders") as caught:
            call(tmp_path)
        assert {warning.filename for warning in caught} == {__file__}


def test_numeric_labels_are_sorted_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("file,label\n" + "".join(f"{i}.jpg,{i}\n" for i in (10, 9, 2)))
    dataset = as_dataset(tmp_path / "table.csv")
    assert dataset.classes == ("2", "9", "10")
    assert dataset.labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"collate_fn": None}, r"collate_fn: not a parameter of Loader; .*batch_transform"),
        ({"worker_init_fn": None}, r"worker_init_fn: not a parameter of Loader; there are no worker processes"),
        ({"pin_memory": True}, r"pin_memory: not a parameter of Loader; .*leave it out"),
        ({"generator": torch.Generator()}, r"generator: not a parameter of Loader; give seed"),
        ({"batch_sampler": []}, r"batch_sampler: not a parameter of Loader; give sampler, batch_size and drop_last"),
    ],
)
def test_arguments_that_only_a_data_loader_has_are_rejected_with_the_alternative(
    class_folders: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FastpetsError, match=message):
        Loader(class_folders, label_from="folder", **arguments)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colate_fn'"):
        Loader(class_folders, label_from="folder", colate_fn=None)


def test_nhwc_is_the_same_memory_and_batch_transform_is_applied_last(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(6)
    plain, nhwc = Loader(folder, size=16), Loader(folder, size=16, layout="NHWC")
    expected, found = next(iter(plain)).images, next(iter(nhwc)).images
    assert found.shape == (6, 16, 16, 3)
    assert found.is_contiguous()
    assert torch.equal(found, expected.permute(0, 2, 3, 1))
    changed = Loader(folder, size=16, batch_transform=lambda images, labels: (images.flip(0), labels * 2))
    batch = next(iter(changed))
    assert torch.equal(batch.images, expected.flip(0))
    assert batch.labels.tolist() == (plain.dataset.labels * 2).tolist()


def test_a_balanced_sampler_picks_classes_equally_often_and_repeated_images_differ(tmp_path: Path) -> None:
    for number in range(20):
        drawing(40, 50, seed=number).save(tmp_path / f"{'rare' if number < 2 else 'common'}_{number}.jpg")
    loader = Loader(tmp_path, sampler="balanced", size=16, augment=True, drop_last=False, batch_size=20)
    assert len(loader) == 1
    counts = np.zeros(2)
    for _ in range(50):
        (batch,) = loader
        counts += np.bincount(batch.labels, minlength=2)
        images = [image.numpy().tobytes() for image in batch.images]
        assert len(set(images)) == len(images)  # although ids repeat
    assert len(set(batch.ids.tolist())) < 20
    assert abs(counts[0] - 500) < 5 * np.sqrt(1000 / 4)  # five standard deviations of a binomial count


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_paths_is_labelled_by_a_pattern_or_by_folders(kind: Any, tmp_path: Path) -> None:
    names = [f"{kind}/{kind[0]}-{number}.jpg" for number in range(12) for kind in ("cat", "dog")]
    paths = kind(sorted(touch(tmp_path, *names).rglob("*.jpg"), reverse=True))
    first = [path.name[0] for path in paths]
    by_pattern = as_dataset(paths, label_pattern=r"^(\w)-")
    assert [by_pattern.classes[label] for label in by_pattern.labels] == first
    assert list(by_pattern.paths) == list(map(str, paths))
    by_folder = as_dataset(paths, label_from="folder")
    assert [by_folder.classes[label] for label in by_folder.labels] == [path.parent.name for path in paths]
    for unlabelled in (as_dataset(paths), as_dataset(paths, label_from="none", label_pattern=r"^(\w)-")):
        assert unlabelled.classes == ()
    train, valid = train_valid_datasets(paths, label_pattern=r"^(\w)-", on_bad_file="skip")
    assert train.classes == valid.classes == ("c", "d")
    assert {*train.paths, *valid.paths} == set(map(str, paths))
    train, _ = train_valid_datasets(paths, on_bad_file="skip")  # as the folder
    assert train.classes == ("cat", "dog")
    assert train_valid_datasets(paths, label_from="none", on_bad_file="skip")[0].classes == ()
    with pytest.raises(FastpetsError, match=r"no label in the file name by label_pattern='\(x\)'"):
        as_dataset(paths, label_pattern="(x)")

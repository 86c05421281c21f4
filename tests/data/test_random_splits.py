"""Splits that neither folders nor a table define: each class is in both parts, and folds cover every image once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastpets
from fastpets.data.random_splits import fastai_split, fold_split, random_split, stratified_split
from fastpets.data.splits import train_valid_datasets
from fastpets.errors import FastpetsError, InvalidArgumentError
from tests.folders import labelled, touch

SIZES = ([2] * 30, [1, 2, 3, 50], [7] * 10, [100, 101, 102], [1, 1, 1, 20], [10] * 37, [5, 1000])


def labels_of(counts: list[int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("counts", SIZES)
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_a_stratified_split_has_the_share_of_each_class_and_the_class_in_both_parts(
    counts: list[int], share: float
) -> None:
    labels = labels_of(counts, 0)
    if int(share * len(labels)) == 0:
        pytest.skip("no validation image")
    for seed in range(5):
        train, valid = stratified_split(labels, seed, share)
        assert sorted([*train, *valid]) == list(range(len(labels)))
        assert (np.diff(train) > 0).all()
        found = np.bincount(labels[valid], minlength=len(counts))
        for count, num_valid in zip(counts, found.tolist(), strict=True):
            if count == 1:
                assert num_valid == 0
            else:
                assert 1 <= num_valid <= count - 1
                assert abs(num_valid - share * count) < 1 or num_valid == 1
        exact = int(share * len(labels))
        if min(counts) >= 1 / min(share, 1 - share):  # no class needs an exception
            assert len(valid) == exact


def test_the_seed_chooses_the_images_of_a_stratified_split() -> None:
    labels = labels_of([10] * 37, 0)
    assert (stratified_split(labels, 3)[1] == stratified_split(labels, 3)[1]).all()
    assert (stratified_split(labels, 3)[1] != stratified_split(labels, 4)[1]).any()


@pytest.mark.parametrize("counts", SIZES)
@pytest.mark.parametrize("num_folds", [2, 5])
def test_each_image_validates_in_one_fold_and_no_class_only_validates(counts: list[int], num_folds: int) -> None:
    labels = labels_of(counts, 1)
    folds = [fold_split(labels, 42, fold, num_folds) for fold in range(num_folds)]
    validated = Counter(i for _, valid in folds for i in valid.tolist())
    assert set(validated.values()) == {1}
    assert set(range(len(labels))) - set(validated) == {i for i in range(len(labels)) if counts[labels[i]] == 1}
    sizes = [len(valid) for _, valid in folds]
    assert max(sizes) - min(sizes) <= 1
    for train, valid in folds:
        assert sorted([*train, *valid]) == list(range(len(labels)))
        assert set(labels[valid]) <= set(labels[train])
    of_classes = np.array([np.bincount(labels[valid], minlength=len(counts)) for _, valid in folds])
    assert (of_classes.max(0) - of_classes.min(0) <= 1).all()


def test_the_default_is_stratified_if_a_class_is_small_and_random_as_before_otherwise(tmp_path: Path) -> None:
    for name, num_images in (("few", 24), ("many", 25)):
        touch(tmp_path / name, *(f"{kind}_{n}.jpg" for kind in ("cat", "dog") for n in range(num_images)))
        chosen = {
            how: [labelled(part) for part in train_valid_datasets(tmp_path / name, split=how, on_bad_file="skip")]
            for how in ("auto", "random", "stratified")
        }
        assert chosen["random"] != chosen["stratified"]
        assert chosen["auto"] == chosen["stratified" if name == "few" else "random"]


def test_with_one_class_a_stratified_split_is_the_random_one() -> None:
    labels = np.full(50, -1)
    assert (stratified_split(labels, 42)[1] == random_split(labels, 42)[1]).all()


def test_fastais_split_of_a_list_is_in_its_order() -> None:
    import torch

    paths = [f"{n}.jpg" for n in range(20)][::-1]
    expected = torch.randperm(20, generator=torch.Generator().manual_seed(42))[:5].tolist()
    assert fastai_split(paths, None, 42, 0.25)[1].tolist() == sorted(expected)


def test_loaders_take_a_share_and_a_fold(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(40)
    settings: dict[str, Any] = {"size": 16, "batch_size": 8, "num_workers": 1, "device": "cpu"}
    _, valid = fastpets.loaders(folder, valid_share=0.4, **settings)
    assert len(valid.dataset) == 16
    paths = [
        path for fold in range(4) for path in fastpets.loaders(folder, k_fold=(fold, 4), **settings)[1].dataset.paths
    ]
    assert sorted(paths) == sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "rand"}, r"^split: 'rand', expected one of auto, random, stratified, fastai$"),
        ({"valid_share": 1}, r"^valid_share: 1, expected more than 0 and less than 1$"),
        ({"valid_share": "0.2"}, r"^valid_share: '0.2', expected a number$"),
        ({"k_fold": (5, 5)}, r"^k_fold: \(5, 5\), expected \(i, k\)"),
        ({"k_fold": 5}, r"^k_fold: 5, expected \(i, k\)"),
        ({"k_fold": (0, 5), "split": "fastai"}, r"^split: 'fastai', but folds are stratified"),
        ({"k_fold": (0, 5), "valid_share": 0.3}, r"^valid_share: 0.3, but a fold's share is 1 / 5"),
        ({"valid_share": 0.01}, r"^12 images, expected at least 100, of which a share of 0.01 validates"),
        ({"k_fold": (0, 50)}, r"^12 images of classes with several, expected at least 50 for as many folds"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = touch(tmp_path, *(f"cat_{n}.jpg" for n in range(12)))
    with pytest.raises(FastpetsError, match=message):
        train_valid_datasets(folder, on_bad_file="skip", **arguments)


@pytest.mark.parametrize("arguments", [{"k_fold": (0, 5)}, {"split": "fastai"}, {"valid_share": 0.3}])
def test_a_split_by_folders_is_not_silently_used_instead(arguments: dict[str, Any], tmp_path: Path) -> None:
    folder = touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "valid/cat/3.jpg")
    with pytest.raises(InvalidArgumentError, match=f"^{next(iter(arguments))}: the source has validation images of"):
        train_valid_datasets(folder, on_bad_file="skip", **arguments)


def test_classes_of_one_image_each_cannot_be_divided(tmp_path: Path) -> None:
    folder = touch(tmp_path, *(f"kind{n}_1.jpg" for n in range(10)))
    with pytest.raises(FastpetsError, match="each class has one image, expected several"):
        train_valid_datasets(folder, on_bad_file="skip")

"""The drawn data set has files of all kinds, and classes that only form distinguishes."""

import collections
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from fastpets.data.dataset import ImageDataset
from fastpets.data.sample import CLASSES, draw_image, sample_folder
from fastpets.data.sources import from_folder
from fastpets.data.splits import train_valid_datasets


@pytest.fixture(scope="module")
def dataset(sample: Path) -> ImageDataset:
    return from_folder(sample)


def test_it_has_eight_classes_480_images_and_a_text_file(dataset: ImageDataset) -> None:
    assert len(dataset.classes) == 8
    assert len(dataset) == 480
    assert [Path(path).name for path in dataset.ignored_files] == ["about.txt"]


def test_all_kinds_of_files_occur(dataset: ImageDataset) -> None:
    counts: collections.Counter = collections.Counter()
    for path in dataset.paths:
        with Image.open(path) as image:
            width, height = ImageOps.exif_transpose(image).size
            counts.update([image.format, image.mode, "portrait" if height > width else "landscape"])
            counts["progressive"] += "progressive" in image.info
            counts[f"orientation {image.getexif().get(Base.Orientation, 1)}"] += 1
            counts["large"] += max(image.size) > 1200
            counts["small"] += max(image.size) < 100
            assert 60 <= min(image.size) <= max(image.size) <= 2000
    kinds = ["JPEG", "PNG", "GIF", "L", "CMYK", "progressive", "portrait", "landscape", "large", "small"]
    for kind in [*kinds, *(f"orientation {orientation}" for orientation in range(2, 9))]:
        assert counts[kind] >= 1, kind


def test_an_image_is_a_function_of_its_seed() -> None:
    digests = {
        hashlib.sha256(draw_image("dotted_triangle", np.random.default_rng(seed)).tobytes()).hexdigest()
        for seed in (1, 1, 2)
    }
    assert len(digests) == 2


def test_the_folder_is_drawn_once(sample: Path) -> None:
    before = (sample / "about.txt").stat().st_mtime_ns
    assert sample_folder() == sample
    assert (sample / "about.txt").stat().st_mtime_ns == before
    assert not [path for path in sample.parent.iterdir() if path.name.startswith("tmp")]


def test_an_image_with_an_exif_orientation_is_upright_as_drawn(sample: Path) -> None:
    """Compares each with the image that was drawn, and with that turned by 180 degrees."""
    for name in CLASSES:
        for number in range(7, 11):
            random = np.random.default_rng([0, CLASSES.index(name), number])
            drawn = draw_image(name, random)
            stored = ImageOps.exif_transpose(Image.open(sample / f"{name}_{number:03}.jpg"))
            assert stored.size == drawn.size
            difference = np.abs(np.asarray(stored, int) - np.asarray(drawn, int)).mean()
            assert difference < np.abs(np.asarray(drawn, int) - np.asarray(drawn, int)[::-1, ::-1]).mean()


def test_a_classifier_on_colour_histograms_errs_on_over_40_percent(dataset: ImageDataset, sample: Path) -> None:
    """Logistic regression on 64 joint colour bins, with the best of three strengths of regularisation."""

    def histogram(path: str) -> np.ndarray:
        image = Image.open(path).convert("RGB").resize((64, 64))
        bins = (np.asarray(image) // 64).reshape(-1, 3) @ [16, 4, 1]
        return np.sqrt(np.bincount(bins, minlength=64) / 4096)

    train, valid = train_valid_datasets(sample)
    features = {
        part: torch.tensor(np.array([histogram(p) for p in part.paths]), dtype=torch.float32) for part in (train, valid)
    }
    labels = {part: torch.from_numpy(part.labels) for part in (train, valid)}
    errors = []
    for decay in (0, 1e-3, 1e-2):
        torch.manual_seed(0)
        model = torch.nn.Linear(64, len(dataset.classes))
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200)

        def loss(
            model: torch.nn.Linear = model, optimizer: torch.optim.LBFGS = optimizer, decay: float = decay
        ) -> torch.Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(model(features[train]), labels[train])
            value = value + decay * model.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        errors.append((model(features[valid]).argmax(1) != labels[valid]).float().mean().item())
    assert min(errors) > 0.4

"""`fastpets show`, and the conversion of batches to pixels."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastpets
from fastpets.cli import main
from fastpets.loading import display
from fastpets.loading.display import to_pixels


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_to_pixels_inverts_the_normalisation(make_folder: Callable[..., Path], layout: str) -> None:
    folder = make_folder(10)
    normalised = fastpets.Loader(folder, size=24, augment=True, layout=layout, drop_last=False)
    pixels = fastpets.Loader(folder, size=24, augment=True, output="uint8", drop_last=False)
    shown, expected = (to_pixels(loader.peek().images, loader.preprocessing) for loader in (normalised, pixels))
    # The 8-bit values are rounded after the tone adjustments, the normalised ones are not.
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= 1
    assert shown.dtype == np.uint8


def test_show_batch_does_not_advance_the_loader(make_folder: Callable[..., Path]) -> None:
    loader = fastpets.Loader(make_folder(10), size=16, batch_size=4, augment=True)
    expected = fastpets.Loader(loader.dataset, size=16, batch_size=4, augment=True)
    image = loader.show_batch(4)
    assert image.size[0] > 200
    assert all(torch.equal(a.images, b.images) for a, b in zip(loader, expected, strict=True))


def test_show_writes_a_batch_and_nine_augmentations_of_one_image(
    drawn_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["show", str(drawn_classes), "--size", "48", "--num-images", "6", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["augmented.png", "batch.png"]
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 50
    assert "60 images" not in capsys.readouterr().out
    assert main(["show", str(drawn_classes), "--out", str(tmp_path / "nowhere")]) == 1
    assert "no such folder, expected an existing one" in capsys.readouterr().err


def test_show_draws_as_many_images_as_asked_for(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(
        display, "image_grid", lambda images, titles: drawn.append(len(images)) or Image.new("L", (1, 1))
    )
    assert main(["show", str(make_folder(100)), "--size", "16", "--num-images", "70", "--out", str(tmp_path)]) == 0
    assert drawn == [70]


def test_class_names_that_are_not_utf8_are_drawn(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(6)
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("kind1", os.fsdecode(b"kind\xff")))
    assert main(["show", str(folder), "--size", "16", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "batch.png").exists()

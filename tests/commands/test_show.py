"""Batches for people: the very pixels of the model, and the command that draws them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastpets
from fastpets import show
from fastpets.loading.display import to_pixels


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_what_is_shown_is_what_the_model_gets_freed_of_the_normalisation(
    make_folder: Callable[..., Path], layout: str
) -> None:
    folder = make_folder(10)
    normalised = fastpets.Loader(folder, size=24, augment=True, layout=layout, drop_last=False)
    pixels = fastpets.Loader(folder, size=24, augment=True, output="uint8", drop_last=False)
    shown, expected = (to_pixels(loader.peek().images, loader.preprocessing) for loader in (normalised, pixels))
    # The normalised values are the 8-bit ones before they are rounded, in which brightness leaves fractions.
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= 1
    assert shown.dtype == np.uint8


def test_looking_takes_no_batch_away(make_folder: Callable[..., Path]) -> None:
    loader = fastpets.Loader(make_folder(10), size=16, batch_size=4, augment=True)
    expected = fastpets.Loader(loader.dataset, size=16, batch_size=4, augment=True)
    image = loader.show_batch(4)
    assert image.size[0] > 200
    assert all(torch.equal(a.images, b.images) for a, b in zip(loader, expected, strict=True))


def test_the_command_draws_a_batch_and_nine_draws_of_one_image(
    drawn_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert show.main([str(drawn_classes), "--size", "48", "--images", "6", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batch.png", "draws.png"]
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 50
    assert "60 images" not in capsys.readouterr().out
    assert show.main([str(drawn_classes), "--out", str(tmp_path / "nowhere")]) == 1
    assert "no such folder, expected one for the files" in capsys.readouterr().err

"""Loaders that are resized between epochs."""

from collections.abc import Callable
from pathlib import Path

import torch

import fastpets


def test_a_cache_serves_smaller_sizes_with_the_uncached_pixels(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    loader = fastpets.Loader(folder, size=8, cache="host")  # images of up to 96 px are shrunk to at most 32
    list(loader)
    loader.resize((6, 10))
    images = next(iter(loader)).images
    uncached = fastpets.Loader(folder, size=(6, 10))
    uncached._shrink_for = (8, 8)
    assert torch.equal(images, next(iter(uncached)).images)
    uncached.resize((6, 10))
    assert (images - next(iter(uncached)).images).abs().mean() < 0.2  # sampled from images that were shrunk differently

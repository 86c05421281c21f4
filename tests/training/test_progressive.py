"""Images that grow from epoch to epoch."""

from collections.abc import Callable
from pathlib import Path

import torch

import fastpets
from fastpets.models.classifier import create_model
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase


def test_sizes_grow_from_epoch_to_epoch_up_to_the_loaders(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=96, batch_size=8, cache="host")
    sizes: list[tuple[int, ...]] = []
    model = create_model("resnet18", 2, "none")
    learner = Learner(train, valid, model, TrainingOptions(smallest_size=(32, 32)), on_epoch_end=lambda result: None)
    model.register_forward_pre_hook(lambda module, inputs: sizes.append((*inputs[0].shape[2:], module.training)))
    learner.fit([Phase(name="a", epochs=2, lr=1e-3), Phase(name="b", epochs=3, lr=1e-3)])
    assert [size[0] for size in sizes if size[2]] == [side for side in (32, 32, 64, 96, 96) for _ in range(2)]
    assert {size[:2] for size in sizes if not size[2]} == {(96, 96)}


def test_what_a_cache_keeps_serves_smaller_sizes_with_the_uncached_pixels(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    loader = fastpets.Loader(folder, size=8, cache="host")  # images of up to 96 px are shrunk to at most 32
    list(loader)
    loader.resize((6, 10))
    images = next(iter(loader)).images
    uncached = fastpets.Loader(folder, size=(6, 10))
    uncached.shrink_for = (8, 8)
    assert torch.equal(images, next(iter(uncached)).images)
    uncached.resize((6, 10))
    assert (images - next(iter(uncached)).images).abs().mean() < 0.2  # sampled from what is shrunk otherwise

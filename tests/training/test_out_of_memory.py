"""A batch that does not fit into memory: the error names one that does."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fastpets
from fastpets.errors import FastpetsError
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions
from tests.small_resnet import small_resnet


@pytest.mark.parametrize(
    ("batch_size", "fits", "message"),
    [
        (
            16,
            5,
            "out of memory at a batch size of 16, 32 x 32 px; 4 fits: batch_size=4 with accumulate=4 trains on as many "
            "images per step; mixed precision (amp), a smaller size or a smaller arch also need less",
        ),
        (
            11,
            5,
            "out of memory at a batch size of 11, 32 x 32 px; 5 fits: batch_size=5 with accumulate=3 trains on about",
        ),
        (16, 0, "out of memory at a batch size of 16, 32 x 32 px, and at a half of it, a quarter and so on; mixed"),
    ],
)
def test_out_of_memory_is_reported_with_a_batch_size_that_was_tried_and_fits(
    make_folder: Callable[..., Path], batch_size: int, fits: int, message: str
) -> None:
    train, valid = fastpets.loaders(make_folder(40), size=32, batch_size=batch_size)
    model = small_resnet()
    limit_memory(model, fits)
    learner = Learner(train, valid, model, TrainingOptions())
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    for train_somehow in (lambda: learner.fit_one_cycle(1, 1e-3), learner.lr_find):
        with pytest.raises(FastpetsError) as raised:
            train_somehow()
        assert str(raised.value).startswith(message)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random_state)  # the steps that were tried contain dropout


def test_the_advice_names_cached_images_in_the_same_memory(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(40), size=32, batch_size=16, cache="host", device="cpu")
    learner = Learner(train, valid, small_resnet())
    limit_memory(learner.model, 5)
    with pytest.raises(
        FastpetsError, match=r"; cached images take 0\.\d MB of this memory: lower cache_gb, or use cache='disk'$"
    ):
        learner.fit_one_cycle(1, 1e-3)


def limit_memory(model: torch.nn.Module, num_images: int, *, training: bool = True) -> None:
    """Lets a model run out of memory on batches of more images, in training or in evaluation mode."""

    def check(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training == training and len(inputs[0]) > num_images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.register_forward_pre_hook(check)


def test_out_of_memory_in_validation_is_reported_as_such(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(40), size=32, batch_size=8)
    learner = Learner(train, valid, small_resnet())
    limit_memory(learner.model, 4, training=False)
    for function in (lambda: learner.fit_one_cycle(1, 1e-3), learner.validate):
        with pytest.raises(
            FastpetsError, match=r"^out of memory in validation, at a batch size of 8, 32 x 32 px; lower"
        ):
            function()


def test_other_runtime_errors_pass_through(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=32, batch_size=8)
    learner = Learner(train, valid, small_resnet())
    learner.model.backbone.conv1 = torch.nn.Conv2d(4, 64, 7)
    with pytest.raises(RuntimeError, match="expected input"):
        learner.fit_one_cycle(1, 1e-3)


@pytest.mark.parametrize("text", ["Can't allocate 129499136 bytes on device 0.", "CUDA allocation failed"])
def test_exhausted_memory_of_the_decoder_is_reported_as_that_of_the_model_is(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    train, valid = fastpets.loaders(make_folder(40), size=32, batch_size=16, decoder="dali", device="cpu")
    learner = Learner(train, valid, small_resnet(), TrainingOptions())

    def fail(self: object) -> None:
        raise RuntimeError(f"Critical error in pipeline:\nError when executing Mixed operator encountered:\n{text}\n")

    monkeypatch.setattr("nvidia.dali.Pipeline.share_outputs", fail)
    with pytest.raises(FastpetsError, match="out of memory at a batch size of 16, 32 x 32 px; 8 fits: batch_size=8"):
        learner.fit_one_cycle(1, 1e-3)
    with pytest.raises(FastpetsError, match="out of memory in validation, at a batch size of"):
        learner.validate()

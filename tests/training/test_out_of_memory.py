"""A batch that does not fit into memory: the error names one that does."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fastpets
from fastpets.errors import FastpetsError
from fastpets.models.classifier import create_model
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions


@pytest.mark.parametrize(
    ("fits", "message"),
    [
        (
            5,
            "out of memory at a batch size of 16, 32 x 32 px; 4 fits: batch_size=4 with accumulate=4 trains on as many "
            "images per step; mixed precision (amp), a smaller size or a smaller arch need less, too",
        ),
        (0, "out of memory at a batch size of 16, 32 x 32 px, and at all smaller ones; mixed precision"),
    ],
)
def test_out_of_memory_is_reported_with_a_batch_size_that_was_tried_and_fits(
    make_folder: Callable[..., Path], fits: int, message: str
) -> None:
    train, valid = fastpets.loaders(make_folder(40), size=32, batch_size=16)
    model = create_model("resnet18", 2, "none")

    def limited_memory(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.register_forward_pre_hook(limited_memory)
    learner = Learner(train, valid, model, TrainingOptions())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FastpetsError) as raised:
        learner.fit_one_cycle(1, 1e-3)
    assert str(raised.value).startswith(message)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_runtime_errors_pass_through(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=32, batch_size=8)
    learner = Learner(train, valid, create_model("resnet18", 2, "none"))
    learner.model.backbone.conv1 = torch.nn.Conv2d(4, 64, 7)
    with pytest.raises(RuntimeError, match="expected input"):
        learner.fit_one_cycle(1, 1e-3)

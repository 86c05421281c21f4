"""A compiled model; apart from the other steps, since the compiler takes half a minute."""

import shutil

import pytest
import torch

from fastpets.recipe import Recipe
from fastpets.stepper import Stepper
from tests.test_stepper import CPU, batch, tiny_model


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_model_trains_as_the_model_itself() -> None:
    compiled, plain = Stepper(tiny_model(), Recipe(compile=True), CPU), Stepper(tiny_model(), Recipe(), CPU)
    for num_pictures in (8, 5):
        one, other = (stepper.training_step(*batch(num_pictures)) for stepper in (compiled, plain))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

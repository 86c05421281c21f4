"""A compiled model, in a module of its own because compiling takes half a minute."""

import shutil

import pytest
import torch

from fastpets.training.options import TrainingOptions
from fastpets.training.train_step import TrainStep
from tests.training.test_train_step import CPU, batch, tiny_model

pytestmark = pytest.mark.slow


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_model_trains_like_the_model_itself() -> None:
    compiled = TrainStep(tiny_model(), TrainingOptions(compile=True), CPU)
    plain = TrainStep(tiny_model(), TrainingOptions(), CPU)
    for num_images in (8, 5):
        one, other = (train_step.step(*batch(num_images)) for train_step in (compiled, plain))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

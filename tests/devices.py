"""Parametrisations by device: the CPU, and a GPU if there is one."""

import pytest
import torch

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]

"""Where a test runs: on the CPU everywhere, and on a GPU where there is one."""

import pytest
import torch

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]

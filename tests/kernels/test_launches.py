"""Triton's compiler and launcher, on a stub of CUDA's driver library, for all architectures of GPUs."""

import json
import subprocess
import sys

import pytest

from bench.launches import CAPABILITIES
from bench.stub_cuda import compiler

pytestmark = [pytest.mark.slow, pytest.mark.skipif(compiler() is None, reason="Triton's launcher needs a C compiler")]


def test_all_epochs_launch_one_variant_of_a_kernel_for_each_type_of_output_values() -> None:
    """Whatever the sizes of batches and images: each variant takes a second to compile, during training."""
    done = subprocess.run([sys.executable, "-m", "bench.launches"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == [f"sm_{capability}" for capability in CAPABILITIES]
    for architecture in found.values():
        assert list(architecture["variants"].values()) == [["_warp"], [], ["_warp"], ["_warp"]]  # float16 and bfloat16

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
        # The warp only moves what is in the lookup tables: that of float16 serves bfloat16, too.
        expected = [["_luts", "_warp"], ["_luts"], ["_luts", "_warp"], ["_luts", "_warp"]]
        assert [*architecture["variants"].values()] == expected

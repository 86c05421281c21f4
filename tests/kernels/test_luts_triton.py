"""Lookup tables on a GPU are those of a CPU: in Triton's interpreter, on a GPU, and compiled for all architectures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fastpets import kernels
from fastpets.augment import lookup_tables
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from fastpets.kernels import luts_triton
from tests.devices import GPU
from tests.kernels.triton_modules import CAPABILITIES, compiled, interpreted

Luts = Callable[[np.ndarray, torch.dtype], torch.Tensor]
NUM_IMAGES = 300
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.uint8]


def normalization(dtype: torch.dtype) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    return None if dtype == torch.uint8 else (IMAGENET_MEAN, IMAGENET_STD)


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=GPU)])
def luts(request: pytest.FixtureRequest) -> Luts:
    """The implementation in Triton."""
    on_gpu = request.param == "cuda"
    module = luts_triton if on_gpu else interpreted(luts_triton)

    def run(adjustments: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        there = torch.from_numpy(adjustments).to("cuda" if on_gpu else "cpu")
        return module.luts(there, normalization(dtype), dtype).cpu()

    return run


def random_adjustments() -> np.ndarray:
    """Parameters of NUM_IMAGES images; a random half of them is neutral, and all of the first image's."""
    generator = np.random.default_rng(0)
    ones = np.ones(NUM_IMAGES)
    parameters = {
        "brightness": generator.uniform(0.01, 0.99, NUM_IMAGES),
        "contrast": np.exp(generator.uniform(-1.5, 1.5, NUM_IMAGES)),
        "gamma": np.exp(generator.uniform(-1.5, 1.5, NUM_IMAGES)),
        "solarize": generator.integers(0, 256, NUM_IMAGES) / 255,  # thresholds that tones are equal to
        "posterize": generator.integers(1, 8, NUM_IMAGES) * ones,
        "invert": ones,
    }
    assert tuple(parameters) == lookup_tables.ADJUSTMENTS
    is_applied = generator.random((NUM_IMAGES, 6)) < 0.5
    is_applied[0] = False
    return np.where(is_applied, np.stack([*parameters.values()], axis=1), lookup_tables.NEUTRAL)


@pytest.mark.filterwarnings("ignore:divide by zero")  # the logarithm of a black tone, in the interpreter's NumPy
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_luts_are_those_of_the_cpu(luts: Luts, dtype: torch.dtype) -> None:
    adjustments = random_adjustments()
    expected = kernels.converted(lookup_tables.luts(adjustments, normalization(dtype)), dtype)
    found = luts(adjustments, dtype)
    assert found.dtype == dtype
    assert found.shape == (NUM_IMAGES, 3, 256)
    # Both compute in float64, whose last digits may differ where an exponential is taken. That may turn a value that is
    # half-way between two that are stored; the interpreter cuts bfloat16 off instead of rounding it.
    steps = (ordered(found) - ordered(expected)).abs()
    assert steps.max() <= 1
    if dtype != torch.bfloat16:
        assert (steps > 0).float().mean() < 1e-3
    assert torch.equal(found[0], expected[0]) or dtype == torch.bfloat16


def ordered(values: torch.Tensor) -> torch.Tensor:
    """Numbers as integers, of which neighbours in the same type differ by 1."""
    if values.dtype == torch.uint8:
        return values.long()
    bits = values.view({2: torch.int16, 4: torch.int32}[values.element_size()]).long()
    lowest = -(2 ** (8 * values.element_size() - 1))
    return torch.where(bits < 0, lowest - bits, bits)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("pointer", ["*u8", "*fp16", "*bf16", "*fp32"])
def test_no_register_spills(tmp_path: Path, pointer: str, capability: int) -> None:
    floats = {f"{of}_{channel}": "fp32" for of in ("mean", "std") for channel in ("red", "green", "blue")}
    arguments = {"adjustments": "*fp64", "out": pointer} | floats
    constants = {"is_uint8": pointer == "*u8"}
    used = compiled(luts_triton._luts, arguments, constants, capability, tmp_path, enable_fp_fusion=False).used
    assert (used["STACK"], used["LOCAL"]) == (0, 0)
    assert used["REG"] <= 128

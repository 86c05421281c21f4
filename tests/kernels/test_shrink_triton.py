"""The GPU's `shrink` equals the CPU's bit for bit, reads nothing outside an image, and compiles to efficient code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from fastpets.kernels import PackedImages, shrink_cpu, shrink_triton
from tests.devices import GPU
from tests.kernels.triton_modules import CAPABILITIES, compiled, interpreted

Shrink = Callable[[list[torch.Tensor], np.ndarray], PackedImages]
BATCHES = {
    "one image": [((37, 53), (2, 3))],
    "odd sizes and factors": [((37, 53), (2, 3)), ((1, 1), (1, 1)), ((500, 30), (7, 1)), ((30, 411), (1, 5))],
    "incomplete blocks": [((64, 64), (64, 9)), ((10, 10), (3, 3)), ((5, 2), (5, 2)), ((9, 1200), (4, 1))],
    "nothing to shrink": [((3, 200), (1, 1)), ((70, 5), (1, 1))],
}


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=GPU)])
def shrink(request: pytest.FixtureRequest) -> Shrink:
    """Runs the kernel on images on the CPU."""
    on_gpu = request.param == "cuda"
    module, device = (shrink_triton if on_gpu else interpreted(shrink_triton)), "cuda" if on_gpu else "cpu"
    return lambda images, factors: module.shrink([image.to(device) for image in images], factors, torch.device(device))


def images_and_factors(batch: str) -> tuple[list[torch.Tensor], np.ndarray]:
    """Images of a few neighbouring levels, whose means often lie half-way between two."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(200, 204, (*size, 3), dtype=torch.uint8, generator=generator) for size, _ in BATCHES[batch]]
    images[0].fill_(255)[0, 0, 0] = 0
    return images, np.array([factors for _, factors in BATCHES[batch]])


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_equals_the_cpus_bit_for_bit(shrink: Shrink, batch: str) -> None:
    images, factors = images_and_factors(batch)
    found = shrink(images, factors)
    for image, by, result in zip(images, factors.tolist(), found, strict=True):
        assert torch.equal(result.cpu(), shrink_cpu.shrink(image, *by))


def test_means_half_way_between_two_levels_equal_the_cpus(shrink: Shrink) -> None:
    # Blocks of 2 x 3 pixels whose sum is 6 * level + 3: the float32 product by 1 / 6 is not always exactly half-way.
    levels = np.arange(255, dtype=np.uint8)
    block = np.zeros((2, 3), np.uint8)
    block[0] = 1
    image = torch.from_numpy(np.ascontiguousarray((levels[:, None, None] + block).transpose(1, 0, 2).reshape(2, -1, 1)))
    image = image.repeat(1, 1, 3)
    (found,) = shrink([image], np.array([[2, 3]]))
    assert torch.equal(found.cpu(), shrink_cpu.shrink(image, 2, 3))


def test_nothing_outside_an_image_is_read(shrink: Shrink, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: list[int] = []
    load = interpreter._interpreter.load

    def spy(pointers, mask, other, dtype):
        if dtype == np.uint8:
            addresses.extend(pointers[mask].tolist())
        return load(pointers, mask, other, dtype)

    monkeypatch.setattr(interpreter._interpreter, "load", spy)
    image = torch.full((41, 67, 3), 90, dtype=torch.uint8)
    (found,) = shrink([image], np.array([[4, 5]]))
    assert (found == 90).all()
    first = image.data_ptr()
    assert all(first <= address < first + image.numel() for address in addresses)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_it_compiles_without_spills_and_without_fused_products(tmp_path: Path, capability: int) -> None:
    pointers = {"rows": "*i64", "integers": "*i32", "floats": "*fp32", "out": "*u8"}
    constants = {"BLOCK": shrink_triton.BLOCK}
    found = compiled(shrink_triton._shrink, pointers, constants, capability, tmp_path, enable_fp_fusion=False)
    assert (found.used["STACK"], found.used["LOCAL"]) == (0, 0)
    assert found.used["REG"] <= 64  # 8 blocks of 128 threads fit a multiprocessor
    assert "FMUL" in found.instructions
    assert not any(name.startswith("FFMA") for name in found.instructions)

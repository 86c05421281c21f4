"""The GPU kernel equals the reference, in Triton's interpreter and on a GPU, and compiles to efficient machine code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample
from triton.runtime import interpreter

from fastpets.kernels import reference, warp_triton
from tests.devices import GPU
from tests.kernels.triton_modules import CAPABILITIES, Compiled, compiled, interpreted

UNIT = 2**-24  # the largest relative error of rounding to float32
SIZE = (19, 23)  # of the output: 2 x 2 tiles, three of them incomplete


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=GPU)])
def warp(request: pytest.FixtureRequest) -> Callable[..., torch.Tensor]:
    """Runs the kernel on arguments on the CPU, checks that it writes nothing around its output, and returns that."""
    on_gpu = request.param == "cuda"
    module, device = (warp_triton if on_gpu else interpreted(warp_triton)), "cuda" if on_gpu else "cpu"

    def run(images, matrices, factors, luts, size, borders):
        guarded = torch.full((len(images) + 2, *size, 3), 77, dtype=luts.dtype, device=device)
        on_device = [image.to(device) for image in images]
        module.warp(on_device, matrices, factors, spreads(len(images)), luts, guarded[1:-1], borders)
        assert (guarded[[0, -1]] == 77).all()
        return guarded[1:-1].cpu()

    return run


def spreads(batch_size: int) -> torch.Tensor:
    return torch.tensor([0.6, 1.0, 0.8]).repeat(3)[:batch_size]


def random_images(sizes: list[tuple[int, int]], generator: torch.Generator) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]


def strong_matrices(sizes: list[tuple[int, int]], size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Homographies (B, 3, 3) with rotation, shear, a field of view of up to 3 times the image, and w <= 0 in places."""
    matrices = []
    for height, width in sizes:
        middle = torch.eye(3, dtype=torch.float64)
        middle[:2, 2] = -0.5
        random = torch.rand(3, 3, dtype=torch.float64, generator=generator) * 3 - 1.5
        random[2] = torch.tensor([random[2, 0], random[2, 1], 1.3])
        scale = torch.tensor([1 / size[1], 1 / size[0], 1]).double()
        matrices.append(
            torch.tensor([width, height, 1]).double()[:, None] * (middle.inverse() @ random @ middle) * scale
        )
    return torch.stack(matrices).float()


def permutations(batch_size: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Lookup tables (B, 3, 256) that are permutations of 0-255, so that each output identifies its index."""
    return torch.rand(batch_size, 3, 256, generator=generator).argsort(-1).to(dtype)


def indices(out: torch.Tensor, luts: torch.Tensor) -> torch.Tensor:
    """Returns the index of each output in its lookup table; the outputs are exact entries."""
    whole = out.to(torch.uint8)
    assert torch.equal(whole.to(out.dtype), out)
    return reference.look_up(whole, luts.float().argsort(-1))


def largest_error(
    images: list[torch.Tensor], matrices: torch.Tensor, factors: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Bounds the float32 error of each output's mean: (B, *size, 1); infinite where w <= 0.

    - u and v have an error of at most UNIT * (value + 5): the offset within the pixel is below 1 and takes five
      roundings, its sum with the whole number one.
    - A row of the matrix takes two products and two sums: 4 UNIT times the sum of its absolute terms, with u + 2 and
      v + 2 for u and v.
    - A quotient has the relative errors of both, and 6 UNIT for the reciprocal and the product.
    - Reflecting and clamping add 4 UNIT of the side.
    - The value changes by at most 255 a pixel in x and in y: the coverage changes only where the bilinear value is
      constant.
    - Three linear steps, the coverage, the sum of k * k and the division add less than k * k + 24 UNIT.
    """
    errors = []
    samples = factors.tolist(), spreads(len(images)).double()
    for image, matrix, k, spread in zip(images, matrices.double(), *samples, strict=True):
        at = 0.5 + spread * (torch.arange(k, dtype=torch.float64) - (k - 1) / 2) / k
        rows, columns = ((torch.arange(length)[:, None] + at).flatten() for length in size)
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        x, y, w = (torch.stack([u, v, torch.ones_like(u)], dim=-1) @ matrix.T).unbind(-1)
        terms = torch.stack([u + 2, v + 2, torch.ones_like(u)], dim=-1) @ matrix.abs().T / w[..., None]
        relative = 4 * UNIT * terms[..., 2]
        shift = 4 * UNIT * (terms[..., 0] + terms[..., 1] + sum(image.shape[:2]))
        shift += (x / w).abs().add((y / w).abs()) * (relative + 6 * UNIT)
        error = 255 * (shift / (1 - relative) + (k * k + 24) * UNIT)
        error[(w <= 0) | (relative >= 1)] = torch.inf
        errors.append(error.unfold(0, k, k).unfold(1, k, k).mean((-2, -1))[..., None])
    return torch.stack(errors)


@pytest.mark.parametrize(
    ("borders", "dtype"),
    [("reflect", torch.float32), ("reflect", torch.float16), ("border", torch.bfloat16), ("zeros", torch.uint8)],
    ids=str,
)
@pytest.mark.parametrize("sizes", [[(37, 53)], [(1, 1), (2000, 30), (5, 2)], [(53, 37), (1, 7), (7, 1)]], ids=str)
def test_outputs_are_lookup_table_entries_of_the_exact_value_within_the_float32_error(
    warp: Callable[..., torch.Tensor], sizes: list[tuple[int, int]], dtype: torch.dtype, borders: str
) -> None:
    generator = torch.Generator().manual_seed(len(sizes))
    images, matrices = random_images(sizes, generator), strong_matrices(sizes, SIZE, generator)
    factors = torch.tensor([2, 1, 3], dtype=torch.int32)[: len(sizes)]
    luts = permutations(len(sizes), dtype, generator)
    found = indices(warp(images, matrices, factors, luts, SIZE, borders), luts)
    exact = reference.warp(images, matrices, factors, spreads(len(sizes)), SIZE, borders)
    error = largest_error(images, matrices, factors, SIZE)
    certain = (error < 1).expand(exact.shape)  # both bounds below are then at most one step from the exact value
    assert certain.double().mean() > 0.8
    assert error.median() < 0.05
    fits = ((exact - error).round() <= found) & (found <= (exact + error).round())
    assert fits[certain].all(), f"{(~fits & certain).sum()} of {certain.sum()} outputs differ"


@pytest.mark.parametrize("borders", ["reflect", "border", "zeros"])
def test_a_shift_by_whole_pixels_equals_a_slice_bit_for_bit(warp: Callable[..., torch.Tensor], borders: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = random_images([(22, 31)], generator)
    luts = permutations(1, torch.float16, generator)
    shift = torch.tensor([[[1.0, 0, 8], [0, 1, 3], [0, 0, 1]]])
    out = warp(images, shift, torch.ones(1, dtype=torch.int32), luts, SIZE, borders)
    assert torch.equal(out, reference.look_up(images[0][None, 3:, 8:], luts))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the lowest and highest address of each load of bytes in the interpreter during the test."""
    addresses: list[int] = []
    load = interpreter._interpreter.load

    def spy(pointers, mask, other, dtype):
        if dtype == np.uint8:
            addresses.extend((pointers.min(), pointers.max()))
        return load(pointers, mask, other, dtype)

    monkeypatch.setattr(interpreter._interpreter, "load", spy)
    return addresses


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (5, 2), (37, 53)])
@pytest.mark.parametrize("borders", ["reflect", "border", "zeros"])
def test_nothing_outside_an_image_is_read_for_any_matrix(
    warp: Callable[..., torch.Tensor], loaded: list[int], height: int, width: int, borders: str
) -> None:
    memory = torch.full((2 * 3 * height * width + 1001,), 255, dtype=torch.uint8)
    image = memory[501 : 501 + 3 * height * width].view(height, width, 3).fill_(90)  # at an odd address
    matrices = torch.zeros(7, 3, 3)  # the first gives 0 / 0 at each point
    matrices[1:3] = torch.tensor([torch.nan, torch.inf])[:, None, None]
    matrices[3:] = strong_matrices([(height, width)] * 4, SIZE, torch.Generator().manual_seed(1))
    matrices[4, :2] *= 1e30
    matrices[5, 2] *= -1
    matrices[6, :2] *= -1e6
    factors = torch.tensor([1, 2, 1, 1, 2, 1, 1], dtype=torch.int32)
    luts = torch.arange(256).expand(7, 3, 256).half()
    out = warp([image] * 7, matrices, factors, luts, SIZE, borders)
    finite = out[3:]  # older interpreters propagate NaN through minimum and maximum, a GPU does not
    assert (finite <= 90).all() if borders == "zeros" else (finite == 90).all()
    first = image.data_ptr()
    assert all(first <= address < first + image.numel() for address in loaded)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none")
@pytest.mark.parametrize("borders", ["reflect", "border", "zeros"])
def test_the_error_on_a_gpu_is_at_most_twice_that_of_grid_sample_in_float32(borders: str) -> None:
    sizes, size = [(375, 500), (1200, 1600)], (224, 208)
    generator = torch.Generator().manual_seed(2)
    images, matrices = random_images(sizes, generator), strong_matrices(sizes, size, generator)
    factors = torch.ones(2, dtype=torch.int32)
    luts = torch.arange(256, dtype=torch.uint8, device="cuda").expand(2, 3, 256).contiguous()
    out = torch.empty(2, *size, 3, dtype=torch.uint8, device="cuda")
    on_gpu = [image.cuda() for image in images]
    warp_triton.warp(on_gpu, matrices, factors, spreads(2), luts, out, borders)
    exact = reference.warp(images, matrices, factors, spreads(2), size, borders)
    rows, columns = (torch.arange(length, device="cuda") + 0.5 for length in size)
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    for image, matrix, pixels, value in zip(on_gpu, matrices.cuda(), out.cpu(), exact, strict=True):
        x, y, w = (matrix @ torch.stack([u, v, torch.ones_like(u)]).flatten(1)).view(3, *size)
        grid = torch.stack([2 * x / (w * image.shape[1]) - 1, 2 * y / (w * image.shape[0]) - 1], dim=-1)
        planes, mode = image.permute(2, 0, 1).float(), reference.PADDING_MODES[borders]
        plain = grid_sample(planes[None], grid[None], padding_mode=mode, align_corners=False)[0].permute(1, 2, 0).cpu()
        visible = (w > 0.05).cpu()  # as w approaches 0, both errors grow without bound
        beyond_rounding = ((pixels - value).abs() - 0.5)[visible].clamp(min=0)
        assert beyond_rounding.max() <= 2 * (plain - value).abs()[visible].max()


# Instructions of one sample for a lane's two pixels, with reflected borders, by compute capability; and how many more
# there are with other borders. `warp` states its cost for 100 per pixel.
SAMPLE = {75: 193, 80: 200, 86: 210, 89: 210, 90: 205, 100: 184, 120: 198}
MORE = {"reflect": 0, "border": -18, "zeros": 0}


def compile_warp(borders: str, pointer: str, capability: int, folder: Path, **options: int) -> Compiled:
    pointers = {"rows": "*i64", "integers": "*i32", "floats": "*fp32", "luts": pointer, "out": pointer}
    constants = {"borders": borders, "TILE": warp_triton.TILE}
    arguments = pointers | {"height": "i32", "width": "i32"}
    return compiled(warp_triton._warp, arguments, constants, capability, folder, **options)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("pointer", ["*u8", "*i16", "*i32"])
@pytest.mark.parametrize("borders", ["reflect", "border", "zeros"])
def test_warps_take_adjacent_pixels_no_register_spills_and_five_blocks_fit_a_multiprocessor(
    tmp_path: Path, borders: str, pointer: str, capability: int
) -> None:
    layouts, used, instructions, loops = compile_warp(borders, pointer, capability, tmp_path)
    assert layouts == "blocked<{sizePerThread = [1], threadsPerWarp = [32], warpsPerCTA = [4], order = [0]}>"
    assert (used["STACK"], used["LOCAL"]) == (0, 0)
    # With 96 registers per thread, 5 blocks of 128 threads fit into 65,536 registers: 20 warps with 24 loads in flight
    # each.
    assert 32 <= used["REG"] <= 96
    # `warp` states its cost for 90 instructions per pixel and 100 per sample; a lane computes two pixels.
    assert len(instructions) <= 1.05 * 2 * (90 + 100)
    sample, _ = loops  # over the samples of a row, and over the rows
    assert sum(name.startswith("LDG.E.U8") for name in sample) == 2 * 12  # it has not been unrolled
    assert len(sample) <= 1.06 * (SAMPLE[capability] + MORE[borders])


def test_register_spills_are_detected(tmp_path: Path) -> None:
    assert compile_warp("reflect", "*i16", 90, tmp_path, maxnreg=24).used["STACK"] > 0

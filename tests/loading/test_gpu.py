"""Loading on a GPU: decoding, the warp and caches, compared with the CPU.

Each test also runs with the CPU in place of the GPU, which tests the test itself; `pytest -m gpu` runs those on a GPU.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types
from PIL import Image

from fastpets import Loader, kernels, pipelines
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import from_folder
from tests.devices import DEVICES
from tests.epochs import pixels_by_id, same
from tests.images import drawing, encode
from tests.kernels.test_kernels import SAME, homographies

ORIENTATION = 0x0112
JPEGS: dict[str, Callable[[Image.Image], bytes]] = {
    "baseline": lambda image: encode(image, "JPEG", quality=90),
    "progressive": lambda image: encode(image, "JPEG", quality=90, progressive=True),
    "grey": lambda image: encode(image.convert("L"), "JPEG"),
    "CMYK": lambda image: encode(image.convert("CMYK"), "JPEG"),
    "4:4:4": lambda image: encode(image, "JPEG", subsampling=0),
    "4:2:2": lambda image: encode(image, "JPEG", subsampling=1),
    "4:2:0": lambda image: encode(image, "JPEG", subsampling=2),
    "restart markers": lambda image: encode(image, "JPEG", restart_marker_blocks=4),
    **{f"EXIF {number}": lambda image, number=number: encode(image, "JPEG", exif=turned(number))
       for number in (2, 3, 6, 7)},
}  # fmt: skip


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def decoded(encoded: list[bytes], device: str) -> list[torch.Tensor]:
    """Decodes images with DALI on the device and moves them to the CPU."""
    where = {"device": "cpu", "device_id": None} if device == "cpu" else {"device": "gpu", "device_id": 0}
    batch = [np.frombuffer(each, np.uint8) for each in encoded]
    stream = pipelines.DecodePipeline([batch], batch_size=len(batch), num_threads=2, **where)
    block, sizes = stream.take()
    images = torch.from_dlpack(block).cpu().split((3 * sizes.prod(axis=1)).tolist())
    return [image.view(*size, 3) for image, size in zip(images, sizes.tolist(), strict=True)]


def assert_equals_pillow(encoded: list[bytes], device: str, record_property: Callable[..., None]) -> None:
    """Compares DALI's stored pixels with Pillow's. On the CPU they are bit-identical; a GPU may round differently."""
    worst = 0.0
    for image, file in zip(decoded(encoded, device), encoded, strict=True):
        shown = Image.open(io.BytesIO(file)).convert("RGB")
        steps = abs(image.int() - torch.from_numpy(np.array(shown)).int())
        worst = max(worst, steps.max().item())
        assert steps.float().mean() < (1 if device == "cuda" else 1e-9)
    record_property("worst_step", worst)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("device", DEVICES)
def test_jpegs_of_every_kind_decode_to_pillows_pixels(
    device: str, kind: str, record_property: Callable[..., None]
) -> None:
    sizes = [(375, 500), (333, 251), (17, 31), (8, 8), (1, 1)]
    assert_equals_pillow([JPEGS[kind](drawing(*size)) for size in sizes], device, record_property)


@pytest.mark.parametrize("device", DEVICES)
def test_real_images_decode_to_pillows_pixels(device: str, pets: Path, record_property: Callable[..., None]) -> None:
    files = sorted(pets.glob("*.jpg"))[:: 1 if device == "cuda" else 20]
    assert_equals_pillow([file.read_bytes() for file in files], device, record_property)


@pipeline_def(exec_dynamic=True)
def dali_warp(device: str, size: tuple[int, int]) -> Any:
    images = fn.external_source(name="images", layout="HWC", dtype=types.UINT8)
    matrices = fn.external_source(name="matrices", dtype=types.FLOAT)
    if device == "gpu":
        images = images.gpu()
    warped = fn.experimental.warp_perspective(
        images, matrices, size=size, border_mode="reflect", pixel_origin="corner", inverse_map=True
    )
    return warped.cpu()


@pytest.mark.parametrize("device", DEVICES)
def test_the_warp_is_within_one_step_of_dalis(device: str) -> None:
    """Both round to the nearest of 256 steps; before rounding, float32 is off by less than one."""
    shapes, size = [(37, 53), (375, 500), (600, 460)], (224, 208)
    images, matrices = [np.array(drawing(*shape)) for shape in shapes], homographies(shapes, size)
    graph = dali_warp(
        device="gpu" if device == "cuda" else "cpu",
        size=size,
        batch_size=len(shapes),
        num_threads=2,
        device_id=0 if device == "cuda" else None,
    )
    graph.build()
    graph.feed_input("images", images)
    graph.feed_input("matrices", list(matrices.numpy()))
    # By NumPy: what DALI copies from a GPU may be in pinned memory, which torch.from_dlpack refuses as device type 3.
    expected = torch.from_numpy(np.stack([np.asarray(warped) for warped in graph.run()[0]]))
    steps = abs(expected.int() - warped_on(device, images, matrices, size).int())
    assert steps.max() <= 1
    assert steps.float().mean() < 0.1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("borders", ["reflect", "border", "zeros"])
def test_8_bit_values_are_within_one_step_of_the_cpus(device: str, borders: str) -> None:
    shapes, size = [(37, 53), (375, 500), (1200, 1600)], (224, 208)
    images, matrices = [np.array(drawing(*shape)) for shape in shapes], homographies(shapes, size)
    found, expected = (warped_on(where, images, matrices, size, borders) for where in (device, "cpu"))
    steps = abs(found.int() - expected.int())
    assert steps.max() <= 1
    assert (steps == 0).float().mean() > 0.99


def warped_on(
    device: str, images: list[np.ndarray], matrices: torch.Tensor, size: tuple[int, int], borders: str = "reflect"
) -> torch.Tensor:
    """Warps images (H, W, 3) with the device's kernel and moves them to the CPU: (B, *size, 3) uint8."""
    count = len(images)
    out = torch.empty(count, *size, 3, dtype=torch.uint8, device=device)
    there = [torch.from_numpy(image).to(device) for image in images]
    once, luts = torch.ones(count), SAME.expand(count, 3, 256).contiguous()
    kernels.warp(there, matrices, once.int(), once, luts, out, borders)
    return out.cpu()


@pytest.fixture
def dataset(sample: Path) -> ImageDataset:
    return from_folder(sample).select(np.arange(0, 480, 5))


def loader(dataset: ImageDataset, device: str, **settings: Any) -> Loader:
    # Normalised to the values themselves, 0-255.
    usual = {
        "decoder": "dali",
        "size": 64,
        "batch_size": 16,
        "augment": True,
        "drop_last": False,
        "mean": (0,) * 3,
        "std": (1 / 255,) * 3,
    }
    return Loader(dataset, device=device, **(usual | settings))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("settings", [{}, {"layout": "NHWC"}, {"output": "uint8"}, {"dtype": torch.float16}], ids=str)
def test_batches_equal_the_cpus_up_to_rounding_in_the_decoder(
    dataset: ImageDataset, device: str, settings: dict[str, Any]
) -> None:
    found_loader = loader(dataset, device, **settings)
    expected_loader = loader(dataset, "cpu", decoder="auto", **settings)
    for found, expected in zip(found_loader, expected_loader, strict=True):
        assert (found.ids == expected.ids).all()
        assert torch.equal(found.labels.cpu(), expected.labels)
        assert found.images.stride() == expected.images.stride()
        assert found.images.dtype == expected.images.dtype
        assert (found.images.cpu().float() - expected.images.float()).abs().mean() < 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["none", "device"])
def test_batches_that_the_caller_keeps_are_not_overwritten(dataset: ImageDataset, device: str, where: str) -> None:
    made = loader(dataset, device, cache=where)
    kept = [(batch, batch.images.clone(), batch.labels.clone()) for _ in range(2) for batch in made]
    list(made)
    assert all(torch.equal(batch.images, images) for batch, images, _ in kept)
    assert all(torch.equal(batch.labels, labels) for batch, _, labels in kept)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["none", "host", "device"])
def test_prepared_epochs_equal_others_and_a_cache_on_the_host_is_pinned(
    dataset: ImageDataset, device: str, where: str
) -> None:
    def make_loader() -> Loader:
        return Loader(dataset, 8, size=64, augment=True, device=device, decoder="dali", cache=where)

    loader, other = make_loader(), make_loader()
    if where == "host" and device != "cpu":
        assert loader.cache.is_pinned
    for _ in range(3):
        loader.prepare()
        for one, another in zip(loader, other, strict=True):
            assert torch.equal(one.images, another.images)
            assert torch.equal(one.labels, another.labels)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("room", [1, 0.5], ids=["all", "half"])
def test_cached_and_uncached_epochs_have_equal_pixels(
    dataset: ImageDataset, device: str, where: str, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = loader(dataset, "cpu", cache="host").cache.block.numel()
    free = int(2 * room * needed)  # the cache takes at most half of it
    monkeypatch.setattr("fastpets.loading.cache.free_bytes", lambda device: free)
    monkeypatch.setattr("fastpets.loading.memory_cache.RESERVED_BYTES", 0)
    cached, uncached = loader(dataset, device, cache=where), loader(dataset, device)
    for _ in range(3):
        assert same(pixels_by_id(cached), pixels_by_id(uncached))
    assert cached.cache.filled.mean() == pytest.approx(room, abs=0.2)
    assert cached.cache.filled.all() == (room == 1)

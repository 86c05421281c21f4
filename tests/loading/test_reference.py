"""The engine delivers what the reference loader does, for all OPTIONS: the same order and labels, and pixels within one
step of 255 before the lookup table."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler, SubsetRandomSampler

from fastpets import Augment, Loader
from fastpets.kernels import reference as kernels
from fastpets.loading.reference import ReferenceLoader
from tests.images import drawing, encode

NUM_IMAGES = 24
UNCHANGED: dict[str, Any] = {
    "p_flip": 0, "max_rotate": 0, "max_zoom": 1, "max_warp": 0, "max_brightness": 0, "max_contrast": 0, "min_scale": 1
}  # fmt: skip
# Each field of Augment on its own; those that change only other fields, with one.
SINGLE_FIELDS: list[dict[str, Any]] = [
    {"p_flip": 0.5}, {"max_rotate": 30}, {"max_zoom": 1.5}, {"max_warp": 0.3}, {"max_shear": 20},
    {"max_translate": 0.3}, {"min_scale": 0.3}, {"max_brightness": 0.5}, {"max_contrast": 0.5}, {"max_gamma": 1},
    {"max_solarize": 1}, {"max_posterize": 4}, {"p_invert": 0.5}, {"max_lighting": 0.3}, {"mult": 2, "max_rotate": 10},
    {"p_affine": 0.2, "max_rotate": 30}, {"p_lighting": 0.2, "max_gamma": 1},
    {"one_of": True, "max_rotate": 30, "max_gamma": 1},
]  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "validation": {},
    "fastai": {"augment": True},
    "trivial-geometric": {"augment": "trivial-geometric"},
    "squish": {"presize_method": "squish"},
    "pad": {"presize_method": "pad", "augment": True},
    "zeros": {"presize_method": "pad", "borders": "zeros", "augment": True},
    "border": {"presize_method": "pad", "borders": "border", "augment": True},
    "not square": {"size": (24, 41), "augment": True},
    "one pixel": {"size": 1},
    "larger than the images": {"size": 150, "augment": True},
    "shrunk": {"size": 9, "augment": True},
    "presized": {"size": 16, "presize": 20},
    "supersample": {"supersample": 3, "size": 20},
    "uint8": {"output": "uint8", "augment": True},
    "dtype uint8": {"dtype": torch.uint8, "augment": True},
    "float16": {"dtype": torch.float16, "augment": True},
    "bfloat16": {"dtype": torch.bfloat16, "augment": True},
    "NHWC": {"layout": "NHWC", "augment": True},
    "normalisation": {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 2)},
    "seed": {"augment": True, "seed": 2**40 + 5},
    "shuffled, all": {"shuffle": True, "drop_last": False, "batch_size": 7},
    "balanced": {"augment": True, "sampler": "balanced"},
    "repeating sampler": {"augment": True, "sampler": [3, 3, 5, 3, 0, 5], "drop_last": False},
    "rank 1 of 3": {"augment": True, "rank": 1, "world_size": 3, "batch_size": 3},
    "validation on rank 2 of 3": {"rank": 2, "world_size": 3, "batch_size": 3},
    "max_pixels": {"max_pixels": 4_000, "on_bad_file": "skip"},
    **{f"Augment, {', '.join(fields)}": {"augment": Augment(**UNCHANGED | fields)} for fields in SINGLE_FIELDS},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes and formats."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(NUM_IMAGES):
        image = drawing(1 + 9 * number % 97, 3 + 31 * number % 110, seed=number)
        name = folder / f"kind{number % 3}_{number:02}.jpg"
        format = ("JPEG", "JPEG", "PNG", "GIF", "WEBP", "JPEG")[number % 6]
        name.write_bytes(encode(image.convert("L") if number % 5 == 4 else image, format))
    return folder


@pytest.fixture(scope="module")
def with_bad_files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images, except for a truncated JPEG with a good header, an empty file and a text."""
    copies = tmp_path_factory.mktemp("bad") / "images"
    copies.mkdir()
    paths = sorted(folder.iterdir())
    for path in paths:
        (copies / path.name).write_bytes(path.read_bytes())
    large = encode(drawing(200, 160), "JPEG")
    (copies / paths[13].name).write_bytes(large[: len(large) // 2])
    (copies / paths[6].name).write_bytes(b"")
    (copies / paths[7].name).write_text("no image")
    return copies


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The 8-bit values (1, H, W, 3) and lookup tables (1, 3, 256) of each image that a reference loader made."""
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    look_up = kernels.look_up
    monkeypatch.setattr(kernels, "look_up", lambda *call: (calls.append(call), look_up(*call))[1])
    return calls


def check_equal(loader: Loader, reference: ReferenceLoader, looked_up: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Compares two epochs of both, batch by batch.

    Where float32 and float64 round differently, a value may be the next lower or higher of the 256 entries of its
    lookup table. Less than 2% are.
    """
    for _ in range(2):
        looked_up.clear()
        found, expected = list(loader), list(reference)
        assert [batch.ids.tolist() for batch in found] == [batch.ids.tolist() for batch in expected]
        calls = iter(looked_up)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours.labels, theirs.labels)
            assert ours.images.shape == theirs.images.shape
            assert ours.images.dtype == theirs.images.dtype
            assert (ours.images != theirs.images).double().mean() < 0.02
            for image in ours.images:
                values, luts = next(calls)
                pixels = image if loader.preprocessing.layout == "NHWC" else image.permute(1, 2, 0)
                neighbours = [(values.int() + step).clamp(0, 255).byte() for step in (-1, 0, 1)]
                assert torch.stack([kernels.look_up(each, luts)[0] == pixels for each in neighbours]).any(0).all()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.filterwarnings("ignore:left out")
def test_the_engine_delivers_the_batches_of_the_reference_loader(
    folder: Path, options: dict[str, Any], looked_up: Any
) -> None:
    settings = {"size": 32, "batch_size": 5, **options}
    check_equal(Loader(folder, device="cpu", num_workers=2, **settings), ReferenceLoader(folder, **settings), looked_up)


@pytest.mark.parametrize("make", [
    lambda: DistributedSampler(range(NUM_IMAGES), num_replicas=2, rank=1, seed=3),
    lambda: SubsetRandomSampler(range(0, NUM_IMAGES, 2), generator=torch.Generator().manual_seed(4)),
], ids=["DistributedSampler", "a generator of its own"])  # fmt: skip
def test_torch_samplers_give_the_same_order(folder: Path, make: Callable[[], Any], looked_up: Any) -> None:
    settings = {"size": 16, "batch_size": 5, "augment": True}
    check_equal(Loader(folder, device="cpu", sampler=make(), **settings),
                ReferenceLoader(folder, sampler=make(), **settings), looked_up)  # fmt: skip


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("policy", ["skip", "replace"])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_files_are_skipped_or_replaced_alike(
    with_bad_files: Path, policy: str, augment: bool, cache: Any, looked_up: Any
) -> None:
    settings: dict[str, Any] = {"size": 32, "batch_size": 5, "augment": augment, "on_bad_file": policy}
    loader = Loader(with_bad_files, device="cpu", cache=cache, **settings)
    check_equal(loader, ReferenceLoader(with_bad_files, **settings), looked_up)
    assert len(loader.bad_files) == 3


def test_the_reference_stays_short() -> None:
    assert len(Path(inspect.getfile(ReferenceLoader)).read_text().splitlines()) <= 62


def test_classes_and_labels_are_equal(folder: Path) -> None:
    loader, reference = Loader(folder, device="cpu"), ReferenceLoader(folder)
    assert loader.classes == reference.dataset.classes
    assert np.array_equal(loader.dataset.labels, reference.dataset.labels)

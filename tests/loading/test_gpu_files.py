"""Files on a GPU: all formats, damaged files, large images, batches in several parts, and the second of two GPUs.

Each test also runs with the CPU in place of the GPU, which tests the test itself; `pytest -m gpu` runs those on a GPU.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastpets import BadFileError, Loader
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import from_folder
from fastpets.loading import dali_decoding
from tests.devices import DEVICES, TWO_GPUS
from tests.epochs import pixels_by_id, same
from tests.images import drawing
from tests.loading.test_bad_files import cut_short
from tests.loading.test_formats import FILES
from tests.loading.test_gpu import loader

JPEG, WEBP = b"\xff\xd8", b"RIFF"


def as_dataset(folder: Path, files: dict[str, bytes]) -> ImageDataset:
    for name, encoded in files.items():
        (folder / name).write_bytes(encoded)
    return ImageDataset(tuple(str(folder / name) for name in files), np.zeros(len(files), np.int64), ("kind",))


def on_cpu(dataset: ImageDataset, **settings: Any) -> Loader:
    """A loader that decodes with libjpeg-turbo or Pillow."""
    return loader(dataset, "cpu", decoder="auto", **settings)


@pytest.mark.parametrize("device", DEVICES)
def test_files_of_all_formats_equal_the_cpus_up_to_a_step_where_they_are_lossless(device: str, tmp_path: Path) -> None:
    """Only JPEG decodes on a GPU, in floating point of its own; its pixels may differ by more than a step."""
    files = {name.replace(" ", "_"): encoded for name, (encoded, _) in FILES.items()}
    dataset, settings = as_dataset(tmp_path, files), {"augment": False, "shuffle": False}
    found, expected = pixels_by_id(loader(dataset, device, **settings)), pixels_by_id(on_cpu(dataset, **settings))
    assert found.keys() == expected.keys()
    for i, (name, encoded) in enumerate(files.items()):
        steps = (found[i].cpu() - expected[i]).abs()
        if encoded.startswith(JPEG):
            assert steps.mean() < 1, name
        else:
            assert steps.max() < 1.01, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [4, 20])
def test_damaged_files_are_left_out_and_all_other_images_are_those_of_whole_files(
    device: str, batch_size: int, make_folder: Callable[..., Path]
) -> None:
    dataset = from_folder(make_folder(20))
    settings = {"batch_size": batch_size, "on_bad_file": "skip"}
    whole = pixels_by_id(loader(dataset, device, **settings))
    for i in (3, 4, 11):
        cut_short(Path(dataset.paths[i]))
    damaged = loader(dataset, device, **settings)
    with pytest.warns(UserWarning, match="left out"):
        found = pixels_by_id(damaged)
    assert same(found, {i: image for i, image in whole.items() if i not in (3, 4, 11)})
    assert sorted(damaged.bad_files) == sorted(dataset.paths[i] for i in (3, 4, 11))
    assert len(pixels_by_id(damaged)) == 17


@pytest.mark.parametrize("device", DEVICES)
def test_a_damaged_file_raises_an_error_that_names_it(device: str, make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(20))
    cut_short(Path(dataset.paths[7]))
    with pytest.raises(BadFileError) as error:
        list(loader(dataset, device))
    assert list(error.value.problems) == [dataset.paths[7]]


@pytest.fixture
def large(tmp_path: Path) -> ImageDataset:
    """Images that are shrunk before the warp to 64 px, by one factor or by two, beside small ones."""
    sizes = [(600, 800), (300, 420), (1500, 500), (90, 120), (610, 800), (61, 800)]
    for number, size in enumerate(sizes):
        drawing(*size, seed=number).save(tmp_path / f"kind_{number}.png")
    return from_folder(tmp_path)


@pytest.mark.parametrize("device", DEVICES)
def test_large_images_are_shrunk_as_on_the_cpu(device: str, large: ImageDataset) -> None:
    """PNG decodes alike everywhere. Shrinking and warping each round to the nearest step."""
    found, expected = pixels_by_id(loader(large, device)), pixels_by_id(on_cpu(large))
    assert found.keys() == expected.keys()
    for i, image in found.items():
        steps = (image.cpu() - expected[i]).abs()
        assert steps.max() < 20  # two steps, times the slope of a tone adjustment
        assert steps.mean() < 0.5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["none", "device"])
def test_batches_decoded_in_several_parts_have_the_same_pixels(
    device: str, where: str, large: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pixels_by_id(loader(large, device, num_workers=1))
    monkeypatch.setattr(dali_decoding, "CHUNK_BYTES", 600 * 800 * 3)
    parts = loader(large, device, num_workers=1, cache=where)
    assert same(pixels_by_id(parts), whole)
    assert [batch.ids.tolist() for batch in parts]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:1", marks=TWO_GPUS)])
def test_the_second_gpu_delivers_what_the_first_does(device: str, large: ImageDataset) -> None:
    """While the first one is the current device."""
    first = "cpu" if device == "cpu" else "cuda:0"
    for where in ("none", "host", "device"):
        found, expected = (pixels_by_id(loader(large, each, cache=where)) for each in (device, first))
        assert all(image.device == torch.device(device) for image in found.values())
        assert same({i: image.cpu() for i, image in found.items()}, {i: image.cpu() for i, image in expected.items()})

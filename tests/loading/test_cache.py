"""Caches in memory: the same pixels without decoding, within their budget; and the choice of a place."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from fastpets import Loader
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import from_folder
from fastpets.loading import cache as cache_module
from fastpets.loading import memory_cache
from fastpets.loading.cache import ImagesToCache, make_cache
from fastpets.loading.memory_cache import MemoryCache
from tests.epochs import pixels_by_id, same

CPU = torch.device("cpu")
SIZES = np.array([[3, 4], [5, 1], [2, 7]])  # 36, 15 and 42 bytes
NEEDED = 93


@pytest.fixture
def dataset(sample: Path) -> ImageDataset:
    return from_folder(sample).select(np.arange(0, 480, 5))  # all decoders of files, some of them shrunk


def loader(dataset: ImageDataset, **settings: object) -> Loader:
    return Loader(dataset, size=24, batch_size=16, augment=True, drop_last=False, device="cpu", **settings)


@pytest.mark.parametrize("where", ["host", "disk"])
def test_cached_and_uncached_epochs_have_equal_pixels_and_random_parameters(
    dataset: ImageDataset, where: str, tmp_path: Path
) -> None:
    cached, uncached = loader(dataset, cache=where, cache_dir=tmp_path), loader(dataset)
    epochs = [pixels_by_id(cached) for _ in range(3)]
    assert all(same(epoch, pixels_by_id(uncached)) for epoch in epochs)
    assert not any(torch.equal(epochs[1][i], epochs[2][i]) for i in epochs[1])
    assert cached.cache.filled.all()


@pytest.mark.parametrize("where", ["host", "disk"])
def test_nothing_is_read_or_decoded_after_the_first_epoch(make_folder: Callable[..., Path], where: str) -> None:
    dataset = from_folder(make_folder(20))
    cached = loader(dataset, cache=where)
    first = pixels_by_id(cached)
    for path in dataset.paths:
        Path(path).unlink()
    cached.set_epoch(0)
    assert same(pixels_by_id(cached), first)


def test_an_epoch_left_in_its_middle_leaves_a_cache_that_the_next_one_completes(dataset: ImageDataset) -> None:
    cached, uncached = loader(dataset, cache="host"), loader(dataset)
    assert sum(len(batch.ids) for batch in islice(cached, 2)) == 32
    assert 32 <= cached.cache.filled.sum() < len(dataset)  # some are made ahead
    uncached.set_epoch(1)
    assert same(pixels_by_id(cached), pixels_by_id(uncached))
    assert cached.cache.filled.all()


def test_what_does_not_fit_is_decoded_each_time(dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loader(dataset, cache="host").cache.block.numel()
    monkeypatch.setattr(memory_cache, "free_memory", lambda: whole)  # half of it may be taken
    cached, uncached = loader(dataset, cache="host"), loader(dataset)
    for _ in range(3):
        assert same(pixels_by_id(cached), pixels_by_id(uncached))
    assert 0 < cached.cache.filled.sum() == cached.cache.num_kept < len(dataset)
    assert 0.3 * whole < cached.cache.block.numel() <= 0.5 * whole


def test_a_bad_file_is_left_out_and_the_others_are_kept(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    path = folder / "kind1_7.jpg"
    path.write_bytes(path.read_bytes()[:900])  # its header is whole, its image is not
    cached = loader(from_folder(folder), cache="host", on_bad_file="skip")
    with pytest.warns(UserWarning, match="kind1_7.jpg"):
        first = pixels_by_id(cached)
    assert len(first) == 19
    assert len(pixels_by_id(cached)) == 19
    assert cached.cache.filled.sum() == 19


def test_images_are_kept_packed_in_the_size_that_they_are_shrunk_to(dataset: ImageDataset) -> None:
    cached = loader(dataset, cache="host")
    assert cached.cache.sizes.min(axis=1).max() <= 4 * 24
    assert (np.minimum(cached.headers.heights, cached.headers.widths) > 4 * 24).any()
    assert cached.cache.block.numel() == cached.cache.sizes.prod(axis=1).sum() * 3


@pytest.mark.parametrize(("max_bytes", "kept"), [(0, 0), (35, 0), (36, 1), (51, 2), (92, 2), (93, 3), (10**9, 3)])
def test_a_cache_in_memory_holds_whole_images_up_to_its_limit(max_bytes: int, kept: int) -> None:
    cache = MemoryCache(SIZES, CPU, max_bytes)
    images = [torch.full((h, w, 3), value, dtype=torch.uint8) for value, (h, w) in enumerate(SIZES)]
    for i, image in enumerate(images):
        cache.put(i, image)
    assert cache.filled.tolist() == [True] * kept + [False] * (3 - kept)
    assert cache.block.numel() <= max_bytes
    found = cache.packed(np.arange(kept))
    assert all(torch.equal(a, b) for a, b in zip(found, images, strict=False))


def images_to_cache(make_folder: Callable[..., Path]) -> ImagesToCache:
    dataset = from_folder(make_folder(3)).scanned(1)
    return ImagesToCache(dataset.headers, dataset.root, SIZES, np.ones_like(SIZES), CPU, False, "exact")


def test_pixels_of_other_decoders_are_kept_apart(make_folder: Callable[..., Path]) -> None:
    images = images_to_cache(make_folder)
    versions = [
        replace(images, device=torch.device(device), uses_dali=uses_dali, decode=decode).version()
        for device, uses_dali, decode in [
            ("cpu", False, "exact"), ("cpu", False, "fast"), ("cpu", True, "exact"), ("cuda", True, "exact")
        ]
    ]  # fmt: skip
    assert len(set(versions)) == len(versions)
    assert all(f"pillow {metadata.version('pillow')}" in version for version in versions)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets what is free of memory and of the disk."""

    def set_free(memory: int, disk: int = 10**12) -> None:
        monkeypatch.setattr(memory_cache, "free_memory", lambda: memory)
        monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, disk))

    monkeypatch.setattr(memory_cache, "_caches", type(memory_cache._caches)())
    return set_free


@pytest.mark.parametrize(
    ("memory", "disk", "expected"),
    [
        (2 * NEEDED, 0, "host memory: 0.0 MB of images, room for 0.0 MB"),
        (2 * NEEDED - 1, 2 * NEEDED, "files below"),
        (2 * NEEDED - 1, 2 * NEEDED - 1, "none: 0.0 MB of images; host memory: room for only 0.0 MB; files below"),
    ],
)
def test_auto_takes_the_first_place_with_room_for_all_images_and_says_which(
    make_folder: Callable[..., Path], free: Callable[..., None], memory: int, disk: int, expected: str, tmp_path: Path
) -> None:
    free(memory, disk)
    cache, reason = make_cache("auto", images_to_cache(make_folder), tmp_path, None)
    assert reason.startswith(expected)
    assert (cache is None) == reason.startswith("none")


def test_a_named_place_keeps_what_fits(make_folder: Callable[..., Path], free: Callable[..., None]) -> None:
    images = images_to_cache(make_folder)

    def num_kept(where: str, memory: int, cache_gb: float | None = None) -> int:
        free(memory)
        cache, _ = make_cache(where, images, None, cache_gb)
        return cache.num_kept

    assert [num_kept("host", memory) for memory in (10, 2 * NEEDED - 1, 2 * NEEDED)] == [0, 2, 3]
    assert num_kept("device", 2 * NEEDED) == 3  # on a CPU that is the host's memory
    assert num_kept("host", 10, cache_gb=51e-9) == 2


def test_caches_do_not_promise_the_same_memory_twice(
    make_folder: Callable[..., Path], free: Callable[..., None]
) -> None:
    images = images_to_cache(make_folder)
    free(2 * NEEDED)
    first, _ = make_cache("host", images, None, None)
    assert make_cache("host", images, None, None)[0].num_kept == 1  # of 186 bytes 93 are the first one's
    del first
    assert make_cache("host", images, None, None)[0].num_kept == 3

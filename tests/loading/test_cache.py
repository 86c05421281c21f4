"""The cache: the same pixels without decoding, within its budget."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from fastpets import Loader
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import from_folder
from fastpets.loading import cache as cache_module
from fastpets.loading.cache import Cache, make_cache
from tests.epochs import pixels_by_id, same

CPU = torch.device("cpu")
SIZES = np.array([[3, 4], [5, 1], [2, 7]])  # 36, 15 and 42 bytes


@pytest.fixture
def dataset(sample: Path) -> ImageDataset:
    return from_folder(sample).select(np.arange(0, 480, 5))  # all decoders of files, some of them shrunk


def loader(dataset: ImageDataset, **settings: object) -> Loader:
    return Loader(dataset, size=24, batch_size=16, augment=True, drop_last=False, device="cpu", **settings)


def test_cached_and_uncached_epochs_have_equal_pixels_and_random_parameters(dataset: ImageDataset) -> None:
    cached, uncached = loader(dataset, cache="host"), loader(dataset)
    epochs = [pixels_by_id(cached) for _ in range(3)]
    assert all(same(epoch, pixels_by_id(uncached)) for epoch in epochs)
    assert not any(torch.equal(epochs[1][i], epochs[2][i]) for i in epochs[1])
    assert cached.cache.filled.all()


def test_nothing_is_read_or_decoded_after_the_first_epoch(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(20))
    cached = loader(dataset, cache="host")
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
    monkeypatch.setattr(cache_module, "free_memory", lambda: whole)  # half of it may be taken
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


@pytest.mark.parametrize(("budget", "kept"), [(0, 0), (35, 0), (36, 1), (51, 2), (92, 2), (93, 3), (10**9, 3)])
def test_a_cache_holds_whole_images_up_to_its_budget(budget: int, kept: int) -> None:
    cache = Cache(SIZES, CPU, budget)
    images = [torch.full((h, w, 3), value) for value, (h, w) in enumerate(SIZES)]
    cache.put([0, 1, 2], [image.to(torch.uint8) for image in images])
    assert cache.filled.tolist() == [True] * kept + [False] * (3 - kept)
    assert cache.block.numel() <= budget
    found = cache.images(np.arange(kept), CPU)
    assert all(torch.equal(a, b) for a, b in zip(found, images, strict=False))


def test_auto_keeps_all_or_nothing_and_the_named_places_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_caches", type(cache_module._caches)())

    def made(where: str, free: int) -> int | None:
        monkeypatch.setattr(cache_module, "free_memory", lambda: free)
        cache = make_cache(where, SIZES, CPU)
        return None if cache is None else cache.num_kept

    assert [made("auto", free) for free in (185, 186)] == [None, 3]  # the images take 93 bytes
    assert [made("host", free) for free in (10, 185, 186)] == [0, 2, 3]
    assert made("device", 186) == 3  # on a CPU that is the host's memory
    assert made("none", 186) is None


def test_caches_do_not_promise_the_same_memory_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_caches", type(cache_module._caches)())
    monkeypatch.setattr(cache_module, "free_memory", lambda: 186)
    first = make_cache("host", SIZES, CPU)
    assert make_cache("host", SIZES, CPU).num_kept == 1  # of 186 bytes 93 are the first one's
    del first
    assert make_cache("host", SIZES, CPU).num_kept == 3

"""A copied or pickled Loader continues as the original would, in this process and in others."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import RandomSampler

from fastpets import Loader
from tests.epochs import pixels_by_id, same

NUM_IMAGES = 11
CACHES = ("none", "host", "disk")


def make_loader(source: Any, cache_dir: Path, **settings: Any) -> Loader:
    settings = {"batch_size": 4, "size": 32, "augment": True, "drop_last": False, "num_workers": 2, **settings}
    return Loader(source, device="cpu", cache_dir=cache_dir, **settings)


def pickled(loader: Loader) -> Loader:
    return pickle.loads(pickle.dumps(loader))


def use(loader: Loader, how: str) -> None:
    """Leaves the loader as it was, or after a whole epoch and two batches of the next one."""
    if how == "used":
        list(loader)
        batches = iter(loader)
        next(batches)
        next(batches)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("how", ["new", "used"])
@pytest.mark.parametrize("make_copy", [copy.deepcopy, pickled])
def test_a_copy_continues_as_the_original_would(
    make_folder: Callable[..., Path], tmp_path: Path, make_copy: Callable[[Loader], Loader], how: str, cache: str
) -> None:
    loader = make_loader(make_folder(NUM_IMAGES), tmp_path, cache=cache)
    use(loader, how)
    other = make_copy(loader)
    assert other.state_dict() == loader.state_dict()
    assert (len(other), other.epoch, other.dtype, other.cache_reason) == (
        len(loader), loader.epoch, loader.dtype, loader.cache_reason,
    )  # fmt: skip
    for _ in range(2):
        assert same(pixels_by_id(other), pixels_by_id(loader))
    expected = make_loader(loader.dataset, tmp_path)
    expected.set_epoch(other.epoch)
    assert same(pixels_by_id(other), pixels_by_id(expected))


@pytest.mark.parametrize("make_copy", [copy.deepcopy, pickled])
def test_a_copy_has_its_own_samplers_state_and_bad_files(
    make_folder: Callable[..., Path], tmp_path: Path, make_copy: Callable[[Loader], Loader]
) -> None:
    folder = make_folder(NUM_IMAGES)
    sampler = RandomSampler(range(NUM_IMAGES), generator=torch.Generator().manual_seed(3))
    loader = make_loader(folder, tmp_path, sampler=sampler, on_bad_file="skip")
    list(loader)
    other = make_copy(loader)
    order = [int(i) for batch in loader for i in batch.ids]
    assert [int(i) for batch in other for i in batch.ids] == order
    assert [int(i) for batch in other for i in batch.ids] != order
    loader.bad_files["one"] = "damaged"
    assert other.bad_files == {}


def test_copies_share_a_cache_and_pickled_ones_start_anew_or_read_its_files(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(NUM_IMAGES)
    for cache in ("host", "disk"):
        loader = make_loader(folder, tmp_path, cache=cache)
        list(loader)
        assert loader.cache is not None
        assert copy.deepcopy(loader).cache is loader.cache
        other = pickled(loader)
        assert other.cache.filled.tolist() == [cache == "disk"] * NUM_IMAGES
        list(other)
        assert other.cache.filled.all()


def deliver(loaders: list[Loader], answer: Connection) -> None:
    """Runs in a child process: the next epoch of each loader."""
    for loader in loaders:
        images = pixels_by_id(loader)
        answer.send({i: image.numpy() for i, image in images.items()})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_processes_load_with_pickled_loaders(
    make_folder: Callable[..., Path], tmp_path: Path, method: str
) -> None:
    folder, loaders = make_folder(NUM_IMAGES), []
    for cache in CACHES:
        for how in ("new", "used"):
            loaders.append(make_loader(folder, tmp_path / how, cache=cache))
            use(loaders[-1], how)
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=deliver, args=(loaders, theirs))
    child.start()
    theirs.close()
    for loader in loaders:
        assert ours.poll(120)
        found = {i: torch.from_numpy(image) for i, image in ours.recv().items()}
        assert same(found, pixels_by_id(loader))
    child.join(60)
    assert child.exitcode == 0

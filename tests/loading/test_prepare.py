"""A prepared epoch is the one that would have come anyway, and its first batch is made before the loop begins."""

import gc
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import RandomSampler

from fastpets import Batch, Loader
from fastpets.errors import BadFileError
from fastpets.loading.prepared import PreparedEpoch
from tests.fake_cuda import Cuda, Stream
from tests.loading.test_leaving import own_threads

NUM_IMAGES = 11


def make_loader(source: Any, **settings: Any) -> Loader:
    settings = {"batch_size": 3, "size": 32, "augment": True, "drop_last": False, "num_workers": 2, **settings}
    return Loader(source, **{"device": "cpu", **settings})


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    return make_folder(NUM_IMAGES)


def same(found: list[Batch], expected: list[Batch]) -> bool:
    return len(found) == len(expected) and all(
        torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels) and (one.ids == other.ids).all()
        for one, other in zip(found, expected, strict=True)
    )


def first_is_made(loader: Loader) -> None:
    """Waits until the first batch is made."""
    assert loader._prepared is not None
    loader._prepared._first.exception()


def own_generator() -> dict[str, Any]:
    return {"sampler": RandomSampler(range(NUM_IMAGES), generator=torch.Generator().manual_seed(3))}


@pytest.mark.parametrize("settings", [dict, lambda: {"cache": "host"}, lambda: {"sampler": "balanced"}, own_generator])
def test_prepared_epochs_are_those_that_would_have_come(folder: Path, settings: Callable[[], dict[str, Any]]) -> None:
    loader, other = make_loader(folder, **settings()), make_loader(folder, **settings())
    for _ in range(3):
        expected = list(other)
        state = str(loader.state_dict())
        loader.prepare()
        first_is_made(loader)
        assert str(loader.state_dict()) == state
        assert same(list(loader), expected)
        assert loader._prepared is None


def test_the_first_batch_is_made_before_the_loop(folder: Path) -> None:
    loader = make_loader(folder, batch_size=NUM_IMAGES)
    expected = list(make_loader(folder, batch_size=NUM_IMAGES))
    loader.prepare()
    first_is_made(loader)
    for file in folder.rglob("*.*"):
        file.unlink()
    assert same(list(loader), expected)


CHANGES: list[Callable[[Loader], Any]] = [
    lambda loader: loader.set_epoch(5),
    lambda loader: loader.skip_batches(2),
    lambda loader: loader.resize((16, 16)),
    lambda loader: loader.normalize((0.1, 0.2, 0.3), (1, 2, 3)),
    lambda loader: loader.load_state_dict(loader.state_dict() | {"epoch": 2, "delivered": 3}),
    lambda loader: loader.prepare(),
    lambda loader: loader.peek(),
    lambda loader: next(iter(loader)),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_next_epoch_changes_one_that_is_prepared(
    folder: Path, change: Callable[[Loader], Any]
) -> None:
    loader, other = make_loader(folder), make_loader(folder)
    loader.prepare()
    change(loader)
    change(other)
    assert same(list(loader), list(other))


def test_a_loop_that_is_left_ends_a_prepared_epoch(folder: Path) -> None:
    loader, other = make_loader(folder), make_loader(folder)
    loader.prepare()
    batches = iter(loader)
    next(batches)
    batches.close()
    assert own_threads() == []
    list(other)
    assert same(list(loader), list(other))


def test_an_epoch_that_is_prepared_in_vain_ends_with_its_loader(folder: Path) -> None:
    loader = make_loader(folder)
    loader.prepare()
    prepared = loader._prepared
    assert isinstance(prepared, PreparedEpoch)
    prepared._first.exception()
    del loader, prepared
    gc.collect()
    assert own_threads() == []


def test_a_bad_file_is_reported_by_the_loop(folder: Path) -> None:
    loader = make_loader(folder, shuffle=False)
    file = min(folder.rglob("*.*"))
    file.write_bytes(file.read_bytes()[:200])
    loader.prepare()
    first_is_made(loader)
    with pytest.raises(BadFileError, match=file.name):
        next(iter(loader))


def of_a_child(loader: Loader) -> list[Any]:
    return [batch.ids.tolist() for batch in loader]


def test_a_forked_process_makes_the_epoch_itself(folder: Path) -> None:
    loader = make_loader(folder)
    loader.prepare()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(of_a_child, [loader]).get(60)
    assert found == of_a_child(loader)


def test_a_process_that_prepares_in_vain_exits(folder: Path) -> None:
    script = f"from fastpets import Loader; loader = Loader({str(folder)!r}, device='cpu', size=32); loader.prepare()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("guarded", [True, False])
def test_another_stream_than_that_of_prepare_waits_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    settings = {"shuffle": False, "decoder": "dali"}
    expected = [batch.images.numpy() for batch in make_loader(folder, **settings)]
    if not guarded:
        monkeypatch.setattr(PreparedEpoch, "_hand_over", lambda self, batch: None)
    with Cuda.installed() as cuda:
        loader = make_loader(folder, device="cuda", **settings)
        loader.prepare()
        first_is_made(loader)
        with cuda.stream(Stream(cuda.devices[0])):
            batches = iter(loader)
            found = next(batches).images.cpu().numpy()
        assert (found == expected[0]).all() == guarded

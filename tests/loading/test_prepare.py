"""A prepared epoch is the one that would have come anyway, and its first batch is made before the loop begins."""

import gc
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
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
    loader._prepared.is_made.exception()


@pytest.mark.parametrize("settings", [{}, {"cache": "host"}, {"augment": False}, {"rank": 1, "world_size": 2}], ids=str)
def test_prepared_epochs_are_those_that_would_have_come(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    num_taken = []
    batches = PreparedEpoch.batches
    monkeypatch.setattr(PreparedEpoch, "batches", lambda self: num_taken.append(1) or batches(self))
    loader, other = make_loader(folder, **settings), make_loader(folder, **settings)
    for _ in range(3):
        expected = list(other)
        state = str(loader.state_dict())
        loader.prepare()
        first_is_made(loader)
        assert str(loader.state_dict()) == state
        assert same(list(loader), expected)
    assert len(num_taken) == 3


@pytest.mark.parametrize("sampler", ["balanced", RandomSampler(range(NUM_IMAGES)), [3, 1, 2]])
def test_samplers_are_asked_for_their_order_once(folder: Path, sampler: Any) -> None:
    loader = make_loader(folder, sampler=sampler)
    loader.prepare()
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
    prepared.is_made.exception()
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


def send_ids(loader: Loader, to: Connection) -> None:
    to.send([batch.ids.tolist() for batch in loader])


@pytest.mark.parametrize("is_made", [True, False])
def test_a_forked_process_makes_the_epoch_itself(folder: Path, is_made: bool) -> None:
    loader = make_loader(folder)
    loader.prepare()
    if is_made:
        first_is_made(loader)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=send_ids, args=(loader, theirs))
    child.start()
    assert ours.poll(60)
    found = ours.recv()
    child.join(60)
    assert child.exitcode == 0
    assert found == [batch.ids.tolist() for batch in loader]


def test_an_interrupt_while_the_loop_waits_for_the_first_batch_is_raised(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = make_loader(folder, shuffle=False)
    may_go_on = threading.Event()
    run = loader._engine.run

    def slow(batches: Any, planner: Any) -> Any:
        may_go_on.wait()
        yield from run(batches, planner)

    def interrupted() -> None:
        may_go_on.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(loader._engine, "run", slow)
    loader.prepare()
    monkeypatch.setattr(loader._prepared.is_made, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(iter(loader))
    assert own_threads() == []


@pytest.mark.parametrize("then", ["", "batches = iter(loader); next(batches)"])
def test_a_process_that_prepares_exits(folder: Path, decoder: str, then: str) -> None:
    settings = {"device": "cpu", "decoder": decoder, "size": 32, "batch_size": 3}
    script = f"from fastpets import Loader; loader = Loader({str(folder)!r}, **{settings})\nloader.prepare()\n{then}"
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

"""On a GPU, memory stays as it is until the kernels that read it are done, and streams wait for each other.

Run with `tests.fake_cuda`, where all work is as late as it may be. Each test also removes the guard that it is about,
and must then see wrong pixels or growing memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastpets.loading import cached_images, warping
from fastpets.loading import loader as loading  # not by the name Loader, which would run these tests twice
from fastpets.loading.stream_order import StreamOrder
from tests.fake_cuda import Cuda, Mark, Stream

NUM_IMAGES, BATCH_SIZE = 48, 4


@pytest.fixture
def cuda() -> Iterator[Cuda]:
    with Cuda.installed() as cuda:
        yield cuda


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    return make_folder(NUM_IMAGES)


def make_loader(folder: Path, device: str = "cuda", **settings: Any) -> loading.Loader:
    usual = {"size": 24, "batch_size": BATCH_SIZE, "num_workers": 2, "decoder": "dali", "shuffle": False}
    return loading.Loader(folder, device=device, **(usual | settings))


def expected(folder: Path) -> list[np.ndarray]:
    """The batches of any epoch, made on the CPU."""
    return [batch.images.numpy() for batch in make_loader(folder, "cpu")]


def equal(found: list[torch.Tensor], wanted: list[np.ndarray]) -> bool:
    return len(found) == len(wanted) and all(
        np.array_equal(one.cpu().numpy(), other) for one, other in zip(found, wanted, strict=True)
    )


def test_the_batches_of_the_fake_gpu_are_those_of_the_cpu(folder: Path) -> None:
    wanted = expected(folder)
    with Cuda.installed():
        batches = list(make_loader(folder))
        assert {str(batch.images.device) for batch in batches} == {"cuda:0"}
        assert equal([batch.images for batch in batches], wanted)


@pytest.mark.parametrize("guarded", [True, False])
def test_decoded_images_are_held_until_they_are_warped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    wanted = expected(folder)
    if not guarded:
        monkeypatch.setattr(warping.HeldImages, "hold", lambda self, images: None)
    with Cuda.installed():
        assert equal([batch.images for batch in make_loader(folder)], wanted) == guarded


@pytest.mark.parametrize("where", ["none", "host"])
@pytest.mark.parametrize("guarded", [True, False])
def test_a_caller_that_never_waits_does_not_grow_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda, where: str, guarded: bool
) -> None:
    """Decoded images, and copies of images that are cached on the host."""
    if not guarded:
        monkeypatch.setattr(warping, "MAX_HELD", 10**6)
    loader = make_loader(folder, cache=where, drop_last=False, batch_size=1)
    if where == "host":
        list(loader)
    memory = cuda.dali if where == "none" else cuda.torch
    cuda.synchronize()
    memory.most_in_use = before = memory.in_use
    for batch in loader:
        del batch
    most = memory.most_in_use - before
    # Of two batches that are held, and of the next: decoded images; or copies, outputs, lookup tables and the kernels'
    # arguments. Copies of four more batches were started ahead, and that of a fifth is.
    assert (most <= (4 if where == "none" else 3 * 4 + 5)) == guarded


@pytest.mark.parametrize("guard", ["", "wait", "wrote"])
def test_a_cache_that_one_stream_fills_is_read_by_another_when_it_is_filled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda, guard: str
) -> None:
    """Of two epochs at the same time, the second one finds in the cache what the first one has just put there."""
    wanted = expected(folder)
    if guard:
        monkeypatch.setattr(StreamOrder, guard, lambda self: None)
    loader = make_loader(folder, cache="device")
    first, second = iter(loader), iter(loader)
    writing, reading = Stream(cuda.devices[0]), Stream(cuda.devices[0])
    with cuda.stream(writing):
        for _ in range(4):
            next(first)  # two are held, and may not have been warped yet
    with cuda.stream(reading):
        found = [next(second).images.cpu() for _ in range(4)]
    assert equal(found, wanted[:4]) == (guard == "")


@pytest.mark.parametrize("guarded", [True, False])
def test_a_cache_in_memory_that_another_stream_still_uses_is_filled_after_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda, guarded: bool
) -> None:
    wanted = expected(folder)
    if not guarded:
        monkeypatch.setattr(StreamOrder, "wait", lambda self: None)
    num_bytes = make_loader(folder, "cpu", cache="host").cache.block.numel()
    torch.empty(num_bytes, dtype=torch.uint8, device="cuda")  # freed at once; what is written there comes later
    loader = make_loader(folder, cache="device")
    other = Stream(cuda.devices[0])
    with cuda.stream(other):
        list(loader)
    cuda.synchronize()
    with cuda.stream(other):
        assert equal([batch.images for batch in loader], wanted) == guarded


@pytest.mark.parametrize("is_pinned", [True, False])
@pytest.mark.parametrize("guard", ["", "wait_event", "record_stream"])
def test_copies_of_images_cached_on_the_host_are_made_before_and_kept_until_they_are_warped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda, guard: str, is_pinned: bool
) -> None:
    """Whether the cache's memory can be pinned, or its images are gathered in memory that is."""
    wanted = expected(folder)
    if not is_pinned:
        monkeypatch.setattr(cuda, "cudaHostRegister", lambda *_: 2)  # cudaErrorMemoryAllocation
    loader = make_loader(folder, cache="host")
    assert loader.cache.is_pinned == is_pinned
    assert ("not pinned" in loader.cache_reason) != is_pinned
    list(loader)
    if guard:
        monkeypatch.setattr(Stream if guard == "wait_event" else torch.Tensor, guard, lambda self, stream: None)
    found = []
    for batch in loader:
        found.append(batch.images)
        if guard == "record_stream":  # copies of later batches come before this batch's kernel
            loader._engine.copies.wait()
    assert equal(found, wanted) == (guard == "")


def test_a_cache_is_pinned_once_and_until_it_is_freed(folder: Path, cuda: Cuda) -> None:
    loader = make_loader(folder, cache="host")
    assert cuda.pinned == {loader.cache.block.data_ptr()}
    block = loader.cache.block[:1]
    del loader
    assert len(cuda.pinned) == 1
    del block
    assert not cuda.pinned


def test_images_that_adjoin_in_a_cache_are_copied_in_one_piece(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda
) -> None:
    loader = make_loader(folder, cache="host")
    list(loader)
    num_pieces: list[int] = []
    copy_all = torch._foreach_copy_
    monkeypatch.setattr(
        torch, "_foreach_copy_", lambda out, of, **more: num_pieces.append(len(of)) or copy_all(out, of, **more)
    )
    for ids, expected_pieces in (([3], 1), ([3, 4, 5], 1), ([3, 4, 9, 1, 2, 3], 3), ([5, 4, 4], 3)):
        images = loader.cache.packed(np.array(ids))
        copy = loader._engine.copies.start(images)
        copy.is_done.synchronize()
        assert num_pieces.pop() == expected_pieces
        for one, other in zip(copy.images, images, strict=True):
            assert torch.equal(one.as_subclass(torch.Tensor), other)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_loop_that_is_left_early_waits_for_copies_of_the_batches_ahead(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda, guarded: bool
) -> None:
    """Their source is the cache, whose memory may be freed with the Loader."""
    if not guarded:
        monkeypatch.setattr(cached_images.Copies, "wait", lambda self: None)
    loader = make_loader(folder, cache="host")
    list(loader)
    queue = loader._engine.copies._stream.queue
    queue.clear()
    batches = iter(loader)
    next(batches)
    while sum(isinstance(work, Mark) for work in queue) < 4:  # the pool starts copies for four batches ahead
        time.sleep(0.01)
    batches.close()
    left = [work for work in queue if isinstance(work, Mark)]
    assert (left == []) == guarded


@pytest.mark.parametrize("where", ["none", "host", "device"])
def test_a_gpu_that_is_not_the_current_one(folder: Path, cuda: Cuda, where: str) -> None:
    wanted = expected(folder)
    loader = make_loader(folder, "cuda:1", cache=where)
    assert equal([batch.images for _ in range(3) for batch in loader], 3 * wanted)

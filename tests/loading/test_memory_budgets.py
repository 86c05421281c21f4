"""Caches, chunks and DALI's buffers leave memory for training, and several processes share the host's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fastpets
from fastpets import pipelines
from fastpets.data.sources import from_folder
from fastpets.loading import cache as cache_module
from fastpets.loading import dali_decoding, dali_engine, memory_cache
from fastpets.loading.dali_decoding import PipelinePool
from fastpets.loading.memory_cache import RESERVED_BYTES, room_in_memory
from tests.images import drawing

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
GIB = 2**30


@pytest.mark.parametrize("total", [4 * GIB, 8 * GIB, 15 * GIB, 24 * GIB, 80 * GIB])
def test_any_number_of_caches_on_a_gpu_leaves_room_for_training(total: int) -> None:
    free = total
    for _ in range(5):
        room = room_in_memory(GPU, free)
        assert 0 <= room <= free // 2
        free -= room
    assert free >= min(total, RESERVED_BYTES)
    assert room_in_memory(GPU, 80 * GIB) == 40 * GIB


def test_processes_with_caches_of_their_own_divide_the_hosts_memory(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = from_folder(make_folder(20))
    needed = fastpets.Loader(dataset, size=16, cache="host", device="cpu").cache.block.numel()
    monkeypatch.setattr(memory_cache, "free_memory", lambda: 10 * needed)
    monkeypatch.setattr(cache_module.ImagesToCache, "are_files", False)  # as of a data set in memory
    for num_processes, share in ((1, 1.0), (4, 1.0), (8, 0.625), (20, 0.25)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(num_processes))
        made = fastpets.Loader(dataset, size=16, cache="host", device="cpu").cache
        assert made.num_kept <= 20 * share
        assert made.block.numel() * num_processes <= 5 * needed or share == 1


@pytest.mark.parametrize("cache_gb", [None, 0.01, 100])
def test_a_cache_on_a_gpu_is_limited_to_what_is_free(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, cache_gb: float | None
) -> None:
    rooms: list[int] = []
    monkeypatch.setattr(cache_module, "free_bytes", lambda device: 8 * GIB)
    monkeypatch.setattr(cache_module, "MemoryCache", lambda sizes, device, max_bytes, used_on: rooms.append(max_bytes))
    loader = fastpets.Loader(make_folder(20), size=16, device="cpu")
    images = replace(loader._images_to_cache(), device=GPU)
    cache_module.make_cache("device", images, None, cache_gb)
    assert rooms == [{None: 2 * GIB, 0.01: 10_000_000, 100: 8 * GIB}[cache_gb]]


def pool(device: torch.device, num_threads: int = 16) -> PipelinePool:
    return PipelinePool(device, batch_size=64, num_threads=num_threads, hw_decoder_load=0.0, largest=(300, 400))


@pytest.mark.parametrize(("free", "expected"), [(80 * GIB, 2 * GIB), (16 * GIB, GIB // 2), (GIB, 2**27), (0, 2**27)])
def test_chunks_take_a_share_of_a_gpus_free_memory(free: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dali_decoding, "free_bytes", lambda device: free if device == GPU else None)
    made = pool(GPU)
    assert made.chunk_bytes == expected
    monkeypatch.setattr(dali_decoding, "free_bytes", lambda device: 0)  # as when training has begun
    assert made.chunk_bytes == expected
    assert pool(CPU).chunk_bytes == 2 * GIB


def test_dalis_buffers_fit_the_largest_image_within_a_limit() -> None:
    photo: Any = {"height": 3000, "width": 4000, "num_threads": 16}
    hints = pipelines.memory_hints(**photo, num_in_hardware=0, max_bytes=2 * GIB)
    assert hints == {"device_memory_padding": 72_000_000, "host_memory_padding": 48_000_000}
    hints = pipelines.memory_hints(**photo, num_in_hardware=8, max_bytes=2 * GIB)
    assert (hints["preallocate_height_hint"], hints["preallocate_width_hint"]) == (3000, 4000)
    hints = pipelines.memory_hints(**photo, num_in_hardware=8, max_bytes=2**28)
    assert hints == {"device_memory_padding": 2**24, "host_memory_padding": 2**23}  # none for hardware: 288 MB


def test_the_largest_image_is_that_of_the_header_scan(tmp_path: Path) -> None:
    for number, size in enumerate([(30, 50), (80, 20), (40, 60)]):
        drawing(*size).save(tmp_path / f"a_{number}.jpg")
    drawing(200, 200).save(tmp_path / "a_9.gif")  # not decoded by DALI
    headers = fastpets.Loader(tmp_path, size=16, device="cpu").headers
    assert dali_engine.largest_size(headers) == (40, 60)


def test_few_threads_read_local_files_for_a_gpu(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    headers = fastpets.Loader(folder, size=16, device="cpu").headers
    local, remote = ["/data/a.jpg"], ["s3://data/a.jpg"]
    counts = [dali_engine.num_readers(local, headers, threads, GPU) for threads in (1, 4, 16, 64)]
    assert counts == [1, 4, 4, 16]
    assert dali_engine.num_readers(remote, headers, 16, GPU) == 16
    assert dali_engine.num_readers(local, headers, 16, CPU) == 16  # which also warp
    drawing(30, 30).save(folder / "kind0_99.gif")
    with_gif = fastpets.Loader(folder, size=16, device="cpu").headers
    assert dali_engine.num_readers(local, with_gif, 16, GPU) == 16


@pytest.mark.parametrize(("cache", "released"), [("none", [0, 0, 0]), ("host", [1, 1, 1])])
def test_dalis_memory_is_returned_once_the_cache_has_all_images(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, cache: str, released: list[int]
) -> None:
    alive: list[int] = []
    monkeypatch.setattr(pipelines, "release_unused_memory", lambda: alive.append(sum(1 for _ in decode_pipeline_set())))
    loader = fastpets.Loader(make_folder(20), size=16, batch_size=8, cache=cache, decoder="dali", device="cpu")
    before, counts = len(list(decode_pipeline_set())), []
    for _ in released:
        for _ in loader:
            pass
        counts.append(len(alive))
    assert counts == released
    assert all(number == before for number in alive)  # the pipeline is gone before its memory is returned


def decode_pipeline_set() -> Any:
    from fastpets.pipelines import decode_pipeline

    return decode_pipeline._pipelines


def test_half_a_cache_keeps_dalis_memory_which_is_still_needed(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[None] = []
    monkeypatch.setattr(pipelines, "release_unused_memory", lambda: released.append(None))
    dataset = from_folder(make_folder(20))
    needed = fastpets.Loader(dataset, size=16, cache="host", device="cpu").cache.block.numel()
    loader = fastpets.Loader(
        dataset, size=16, batch_size=4, cache="host", cache_gb=needed / 2e9, decoder="dali", device="cpu"
    )
    for _ in range(2):
        list(loader)
    assert 0 < loader.cache.filled.sum() < 16
    assert released == []


def test_dali_takes_the_call_that_returns_its_memory() -> None:
    pipelines.release_unused_memory()

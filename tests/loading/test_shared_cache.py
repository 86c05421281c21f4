"""Loaders with a cache that runs and processes share: the pixels of uncached ones, without decoding."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fastpets import FastpetsError, Loader
from fastpets.cli import main
from fastpets.data.sources import as_dataset, from_folder
from tests.epochs import pixels_by_id, same


def loader(source: object, **settings: object) -> Loader:
    settings = {"size": 24, "batch_size": 16, "augment": True, "drop_last": False, "device": "cpu", **settings}
    return Loader(source, **settings)


@pytest.fixture
def undecodable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns a function after whose call no file can be read."""

    def deny() -> None:
        def read(path: str) -> bytes:
            raise AssertionError(f"{path} was read")

        monkeypatch.setattr("fastpets.data.storage.read", read)

    return deny


def test_a_folder_that_cannot_be_written_is_one_clear_line(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FastpetsError, match=r"^cache_dir: .*file/pixels: Not a directory, expected a folder to write"):
        loader(make_folder(3), cache="disk", cache_dir=tmp_path / "file")


def test_a_second_run_decodes_nothing_and_another_split_shares(
    make_folder: Callable[..., Path], tmp_path: Path, undecodable: Callable[[], None]
) -> None:
    dataset = from_folder(make_folder(20))
    first = pixels_by_id(loader(dataset, cache="disk", cache_dir=tmp_path))
    undecodable()
    again = loader(dataset, cache="disk", cache_dir=tmp_path)
    assert same(pixels_by_id(again), first)
    part = loader(dataset.select(np.arange(3, 20, 4)), cache="disk", cache_dir=tmp_path)
    assert part.cache.filled.all()
    assert len(pixels_by_id(part)) == 5


def test_only_an_image_that_changed_is_decoded_again(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(20)
    pixels_by_id(loader(folder, cache="disk", cache_dir=tmp_path))
    changed = folder / "kind1_7.jpg"
    shutil.copy(folder / "kind0_8.jpg", changed)
    again = loader(folder, cache="disk", cache_dir=tmp_path)
    assert np.flatnonzero(~again.cache.filled).tolist() == [list(again.dataset.paths).index(str(changed))]
    assert same(pixels_by_id(again), pixels_by_id(loader(folder)))


def test_other_shrink_factors_are_other_images_and_the_others_are_shared(sample: Path, tmp_path: Path) -> None:
    dataset = from_folder(sample).select(np.arange(0, 480, 5))
    pixels_by_id(loader(dataset, cache="disk", cache_dir=tmp_path))
    other = loader(dataset, cache="disk", cache_dir=tmp_path, size=32)
    assert 0 < other.cache.filled.sum() < len(dataset)
    assert same(pixels_by_id(other), pixels_by_id(loader(dataset, size=32)))


def test_damage_during_training_costs_only_time(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = from_folder(make_folder(20))
    cached, uncached = (loader(dataset, **where) for where in ({"cache": "disk", "cache_dir": tmp_path}, {}))
    for _ in range(3):
        assert same(pixels_by_id(cached), pixels_by_id(uncached))
        for pixels in tmp_path.glob("pixels/*/*.pixels"):
            with open(pixels, "r+b") as file:
                file.seek(pixels.stat().st_size // 3)
                file.write(b"damage")


def test_files_without_stamps_are_stamped_for_the_cache(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastpets.data.headers.MAX_STAMPED", 5)
    folder = make_folder(8)
    assert loader(folder).headers.keys is None
    pixels_by_id(loader(folder, cache="disk", cache_dir=tmp_path))
    os.utime(folder / "kind0_2.jpg", (1, 1))
    assert loader(folder, cache="disk", cache_dir=tmp_path).cache.filled.sum() == 7


def test_images_in_memory_are_refused(make_folder: Callable[..., Path]) -> None:
    (image,) = make_folder(1).iterdir()
    fsspec.filesystem("memory").pipe_file("/refused.jpg", image.read_bytes())
    with pytest.raises(FastpetsError, match="cache: 'disk', but the images are not in files"):
        loader(["memory://refused.jpg"], cache="disk")


FILL = """
import sys
from fastpets import Loader
settings = {"cache": "disk", "cache_dir": sys.argv[2], "decoder": sys.argv[4], "device": "cpu", "num_workers": 1}
loader = Loader(sys.argv[1], 4, size=24, **settings)
print("ready", flush=True)
for _ in range(int(sys.argv[3])):
    for batch in loader:
        pass
print(int(loader.cache.filled.sum()), flush=True)
"""


def filler(folder: Path, cache_dir: Path, epochs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FILL, str(folder), str(cache_dir), str(epochs), loader(folder).decoder]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_that_fill_at_once_and_one_that_is_killed(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder, cache_dir = make_folder(60), tmp_path / "cache"
    killed = filler(folder, cache_dir, 1000)
    assert killed.stdout.readline() == "ready\n"
    others = [filler(folder, cache_dir, 2) for _ in range(2)]
    deadline = time.monotonic() + 60
    while not list(cache_dir.glob("pixels/*/*.index")) and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [process.communicate()[0] for process in others] == ["ready\n60\n"] * 2
    again = loader(folder, cache="disk", cache_dir=cache_dir)
    assert again.cache.filled.all()
    assert same(pixels_by_id(again), pixels_by_id(loader(folder)))


def test_the_command_lists_and_clears(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make_folder(3, name="first"), make_folder(4, name="second")
    cache_dir = tmp_path / "cache"
    for folder in (first, second):
        pixels_by_id(loader(folder, cache="disk", cache_dir=cache_dir))
    arguments = ["--cache-dir", str(cache_dir)]
    assert main(["cache", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:4] for line in lines[:-1]] == [["3", "images"], ["4", "images"]]
    assert [line.split()[-1] for line in lines[:-1]] == [str(first), str(second)]
    assert lines[-1].endswith(f"2 entries in {cache_dir}")
    assert main(["cache", "clear", str(first), *arguments]) == 0
    assert main(["cache", "clear", str(first), *arguments]) == 1
    assert "not in the cache" in capsys.readouterr().err
    used = loader(second, cache="disk", cache_dir=cache_dir)
    assert main(["cache", "clear", *arguments]) == 1
    assert "in use by a process: not removed" in capsys.readouterr().out
    del used
    (cache_dir / "pixels" / "not ours").mkdir()
    assert main(["cache", "clear", *arguments]) == 0
    assert [path.name for path in (cache_dir / "pixels").iterdir()] == ["not ours"]


def test_processes_of_one_launch_share_the_host_cache_in_memory_that_the_last_one_removes(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undecodable: Callable[[], None]
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("fastpets.loading.cache.SHARED_MEMORY", tmp_path)
    folder = make_folder(20)
    dataset = as_dataset(folder)
    first, second = (loader(dataset, cache="host") for _ in range(2))
    assert first.cache_reason.startswith("memory shared by the processes of this machine: 0.3 MB of images")
    assert len(list(tmp_path.glob("fastpets-*"))) == 1
    expected = pixels_by_id(first)
    undecodable()
    assert same(pixels_by_id(second), expected)
    del first
    second.set_epoch(0)
    assert same(pixels_by_id(second), expected)
    del second
    assert not list(tmp_path.glob("fastpets-*"))


def test_a_host_cache_that_does_not_fit_into_shared_memory_is_on_disk(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("fastpets.loading.memory_cache.free_memory", lambda: 1000)
    cached = loader(make_folder(20), cache="host", cache_dir=tmp_path)
    assert cached.cache_reason.startswith(f"files below {tmp_path}/pixels: 0.3 MB of images")
    assert "memory shared by the processes of this machine: room for only 0.0 MB" in cached.cache_reason


def test_images_that_are_decoded_fast_are_kept_apart(sample: Path, tmp_path: Path, decoder: str) -> None:
    if decoder == "dali":
        pytest.skip("DALI decodes whole images only")
    dataset = from_folder(sample).select(np.arange(0, 480, 5))
    for decode in ("exact", "fast", "exact"):
        cached = loader(dataset, cache="disk", cache_dir=tmp_path, decode=decode)
        assert same(pixels_by_id(cached), pixels_by_id(loader(dataset, decode=decode)))


def test_a_process_that_reserves_room_leaves_some_for_others(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    """The second half of the images fits, although the first process is still writing."""
    dataset = from_folder(make_folder(20))
    needed = int(loader(dataset, cache="host").cache.block.numel())
    parts = [
        loader(dataset.select(np.arange(start, 20, 2)), cache="disk", cache_dir=tmp_path, cache_gb=1.5 * needed / 1e9)
        for start in range(2)
    ]
    for part in parts:
        pixels_by_id(part)
    assert [part.cache.filled.all() for part in parts] == [True, True]

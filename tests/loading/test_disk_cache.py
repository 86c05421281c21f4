"""The cache on disk: what was put into it or nothing, whatever happens to its files."""

import os
import shutil
import subprocess
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from fastpets.errors import FastpetsError
from fastpets.loading import cached_datasets, disk_cache
from fastpets.loading.disk_cache import DiskCache

KEYS = np.array([7, 3, 3, 9], np.uint64)  # the second image comes twice
SIZES = np.array([[3, 4], [5, 2], [5, 2], [2, 7]])
IMAGES = [torch.from_numpy(np.random.default_rng(int(key)).integers(0, 256, (*size, 3), np.uint8))
          for key, size in zip(KEYS, SIZES, strict=True)]  # fmt: skip


def opened(folder: Path, **changes: object) -> DiskCache:
    arguments = {"root": "/data", "version": "1", "keys": KEYS, "sizes": SIZES, "max_bytes": 10**9, **changes}
    return DiskCache(folder, **arguments)


def found(cache: DiskCache) -> list[np.ndarray | None]:
    """What the cache has of each image; None for what it says not to have, or finds to be damaged."""
    return [cache.get(i, np.empty((*size, 3), np.uint8)) if cache.has(i) else None for i, size in enumerate(SIZES)]


def is_right(image: np.ndarray | None, i: int) -> bool:
    return image is not None and np.array_equal(image, IMAGES[i].numpy())


def filled(folder: Path) -> DiskCache:
    cache = opened(folder)
    for i in (0, 1, 3):
        cache.put(i, IMAGES[i])
    return cache


def test_later_caches_have_the_images_and_an_image_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    assert cache.filled.all()
    del cache
    assert all(is_right(image, i) for i, image in enumerate(found(opened(tmp_path))))
    (dataset,) = cached_datasets.cached_datasets(tmp_path)
    assert (dataset.root, dataset.num_images) == ("/data", 3)
    (pixels,) = dataset.folder.glob("*.pixels")
    # Reserved space is given back.
    assert pixels.stat().st_size == sum(image.nbytes for image in IMAGES[:1] + IMAGES[2:])


def test_other_images_versions_and_datasets_are_not_found(tmp_path: Path) -> None:
    filled(tmp_path)
    assert opened(tmp_path, keys=KEYS + np.uint64(1)).filled.tolist() == [False] * 4
    assert not opened(tmp_path, version="2").filled.any()
    assert not opened(tmp_path, root="/other").filled.any()


def test_two_caches_that_are_filled_at_once_share_what_they_have_at_each_refresh(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    first.put(0, IMAGES[0])
    second.put(3, IMAGES[3])
    second.put(1, IMAGES[1])
    assert first.filled.tolist() == [True, False, False, False]
    for cache in (first, second):
        cache.refresh()
        assert all(is_right(image, i) for i, image in enumerate(found(cache)))


def test_a_folder_that_cannot_be_made_is_blamed_on_the_argument_that_chose_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for is_temporary, parameter in {True: "cache", False: "cache_dir"}.items():
        with pytest.raises(FastpetsError, match=f"^{parameter}: .*/file/pixels: Not a directory, expected a folder"):
            opened(tmp_path / "file" / "pixels", is_temporary=is_temporary)


def test_an_image_is_not_read_in_another_shape(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    height, width = SIZES[0]
    assert cache.get(0, np.empty((width, height, 3), np.uint8)) is None  # as of a turned file in its place
    assert is_right(cache.get(0, np.empty((height, width, 3), np.uint8)), 0)


@pytest.mark.parametrize(
    "damage", ["zeros", "truncated", "foreign", "swapped", "removed", "half an entry", "random index"]
)
def test_damaged_files_are_noticed_and_images_are_added_again(tmp_path: Path, damage: str) -> None:
    filled(tmp_path)
    (pixels,), (index,) = (list(tmp_path.glob(f"*/*{suffix}")) for suffix in (".pixels", ".index"))
    content, entries = pixels.read_bytes(), index.read_bytes()
    if damage == "zeros":
        pixels.write_bytes(bytes(len(content)))
    elif damage == "truncated":
        os.truncate(pixels, IMAGES[0].nbytes + 1)
    elif damage == "foreign":
        pixels.write_text("not pixels at all" * 100)
    elif damage == "swapped":  # as if blocks had been written to each other's places
        pixels.write_bytes(content[36:] + content[:36])
    elif damage == "removed":
        pixels.unlink()
    elif damage == "half an entry":
        index.write_bytes(entries[: 24 + 11])
    elif damage == "random index":
        index.write_bytes(np.random.default_rng(0).bytes(2400) + entries[:8] + b"\xfe" + b"\xff" * 7 + entries[16:24])
    cache = opened(tmp_path)
    images = found(cache)
    assert all(image is None or is_right(image, i) for i, image in enumerate(images))
    intact = {"truncated": [True] + 3 * [False], "half an entry": [True] + 3 * [False]}.get(damage, 4 * [False])
    assert [image is not None for image in images] == cache.filled.tolist() == intact
    for i, image in enumerate(IMAGES):
        cache.put(i, image)
    for again in (cache, opened(tmp_path)):  # also where an older segment has another entry for the image
        assert all(is_right(image, i) for i, image in enumerate(found(again)))


def test_files_that_are_removed_while_they_are_used_still_serve(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    shutil.rmtree(tmp_path)
    cache.refresh()
    assert all(is_right(image, i) for i, image in enumerate(found(cache)))


def test_a_full_cache_keeps_what_it_has_and_says_so_once(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.max_bytes = cached_datasets.num_bytes_on_disk(tmp_path) + IMAGES[0].nbytes + IMAGES[1].nbytes
    for i in (0, 1):
        cache.put(i, IMAGES[i])
    with pytest.warns(UserWarning, match=r"limit of 0.0 GB is reached; 3 of 4 images are kept there"):
        cache.put(3, IMAGES[3])
    cache.put(3, IMAGES[3])
    assert cache.filled.tolist() == [True, True, True, False]
    assert all(image is None or is_right(image, i) for i, image in enumerate(found(cache)))


def test_a_full_disk_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = opened(tmp_path)
    cache.put(0, IMAGES[0])
    monkeypatch.setattr(disk_cache.os, "pwrite", lambda file, pixels, offset: pixels.nbytes // 2)
    with pytest.warns(UserWarning, match="No space left on device; 1 of 4 images are kept there"):
        cache.put(1, IMAGES[1])
    monkeypatch.undo()
    assert [image is not None for image in found(opened(tmp_path))] == [True, False, False, False]


def test_a_really_full_file_system(tmp_path: Path) -> None:
    """On a file system of 1 MB, if this user may mount one."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        sizes = np.array([[200, 300]] * 10)  # 180 kB each
        images = [torch.full((200, 300, 3), i, dtype=torch.uint8) for i in range(10)]
        cache = opened(tmp_path, keys=np.arange(10, dtype=np.uint64), sizes=sizes)
        with pytest.warns(UserWarning, match="No space left on device"):
            deque((cache.put(i, image) for i, image in enumerate(images)), maxlen=0)
        kept = np.flatnonzero(cache.filled)
        assert all((cache.get(i, np.empty((200, 300, 3), np.uint8)) == i).all() for i in kept.tolist())
        del cache
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_the_dataset_used_least_recently_makes_room_unless_it_is_in_use(tmp_path: Path) -> None:
    for number, root in enumerate(["/old", "/used", "/new"]):
        cache = opened(tmp_path, root=root)
        cache.put(0, IMAGES[0])
        if root == "/used":
            in_use = cache
        os.utime(cache.dataset_folder / cached_datasets.IN_USE, (number, number))
        del cache
    used = cached_datasets.num_bytes_on_disk(tmp_path)
    opened(tmp_path, root="/next", max_bytes=used + 20_000)
    assert {each.root for each in cached_datasets.cached_datasets(tmp_path)} == {"/old", "/used", "/new", "/next"}
    opened(tmp_path, root="/next", max_bytes=used - 5_000)
    assert {each.root for each in cached_datasets.cached_datasets(tmp_path)} == {"/used", "/new", "/next"}
    opened(tmp_path, root="/next", max_bytes=1000)
    assert {each.root for each in cached_datasets.cached_datasets(tmp_path)} == {"/used", "/next"}
    assert is_right(found(in_use)[0], 0)


def test_a_forked_child_does_not_write_to_its_parents_segment(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(0, IMAGES[0])
    if (child := os.fork()) == 0:
        cache.put(1, IMAGES[1])
        os._exit(0)
    os.waitpid(child, 0)
    cache.put(3, IMAGES[3])
    cache.refresh()
    assert all(is_right(image, i) for i, image in enumerate(found(cache)))


def test_what_killed_processes_left_in_shared_memory_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f"fastpets-{os.getuid()}-1"
    filled(left)
    assert cached_datasets.num_bytes_on_disk(left) > 0
    cached_datasets.temporary_folder(tmp_path)
    assert not left.exists()

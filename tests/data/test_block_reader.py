"""Reading files into blocks of memory gives the bytes and the errors of reading each into memory of its own."""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fastpets.data import storage
from fastpets.data.tar_members import members

SIZES = (0, 1, 5, 4095, 4096, 4097, 70_000, 131_071, 131_072, 131_073, 400_000, 3, 0)


def allocate(num_bytes: int) -> np.ndarray:
    return np.full(num_bytes, 77, np.uint8)


def read_all(paths: Sequence[str], block_bytes: int = 2**17) -> list[bytes | OSError]:
    """The contents, or the errors, of files that one BlockReader reads, all kept until the last is read."""
    reader = storage.BlockReader(allocate, block_bytes)
    found: list[np.ndarray | OSError] = []
    for path in paths:
        try:
            found.append(reader.read(path))
        except OSError as error:
            found.append(error)
    return [each if isinstance(each, OSError) else each.tobytes() for each in found]


def one_by_one(paths: Sequence[str]) -> Iterator[bytes | OSError]:
    for path in paths:
        try:
            yield storage.read(path)
        except OSError as error:
            yield error


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Files of various sizes, one of them with a name that is not UTF-8."""
    names = [f"{number} of {size} bytes" for number, size in enumerate(SIZES)]
    names[3] = os.fsdecode(b"not \xff utf-8")
    for number, (name, size) in enumerate(zip(names, SIZES, strict=True)):
        (tmp_path / name).write_bytes(np.random.default_rng(number).bytes(size))
    return [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("block_bytes", [0, 1, 1000, 4096, 8193, 2**17, 2**20])
def test_whatever_the_size_of_blocks_files_have_their_bytes(files: list[str], block_bytes: int) -> None:
    for paths in (files, files[::-1], [*files, *files], files[:1], []):
        assert read_all(paths, block_bytes) == list(one_by_one(paths))


def test_small_files_share_blocks_and_a_large_one_has_its_own(files: list[str]) -> None:
    given: list[int] = []
    reader = storage.BlockReader(lambda num_bytes: (given.append(num_bytes), allocate(num_bytes))[1], 10_000)
    contents = [reader.read(path) for path in files[:6]]  # of 12,294 bytes together
    assert given == [10_000] * 2
    assert reader.read(files[6]).tobytes() == Path(files[6]).read_bytes()
    assert given == [10_000] * 2 + [SIZES[6] + 1]
    assert [content.tobytes() for content in contents] == list(one_by_one(files[:6]))


def test_members_of_shards_and_remote_files_come_in_their_places(files: list[str], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name, content in (("a.jpg", b"first"), ("b.jpg", b"second" * 1000), ("c.jpg", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    of_shard = [path for path, _ in members(str(tmp_path / "shard.tar"), ".json")]
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/block_reader/a.jpg", b"remote")
    paths = [
        of_shard[1],
        files[6],
        "memory://block_reader/a.jpg",
        of_shard[0],
        "memory://block_reader/gone.jpg",
        of_shard[2],
    ]
    found = read_all(paths)
    assert found[:4] == [b"second" * 1000, Path(files[6]).read_bytes(), b"remote", b"first"]
    assert isinstance(found[4], FileNotFoundError)
    assert found[5] == b""
    memory.rm("/block_reader", recursive=True)


def test_a_shard_that_was_cut_gives_what_is_left_of_a_member(tmp_path: Path) -> None:
    (tmp_path / "shard.tar").write_bytes(b"0123456789")
    shard = tmp_path / "shard.tar"
    paths = [f"{shard}::{start}+{size}::a.jpg" for start, size in ((2, 3), (7, 9), (10, 4), (99, 4))]
    assert read_all(paths) == list(one_by_one(paths)) == [b"234", b"789", b"", b""]


def test_files_that_cannot_be_read_have_the_errors_of_the_operating_system(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    bad = ["/nowhere/image.jpg", str(tmp_path), str(tmp_path / "loop"), f"{files[4]}/image.jpg", "/" + 300 * "x"]
    paths = [path for pair in zip(bad, files, strict=False) for path in pair]
    for found, expected in zip(read_all(paths), one_by_one(paths), strict=True):
        if isinstance(expected, OSError):
            assert isinstance(found, type(expected))
            assert (found.errno, found.strerror) == (expected.errno, expected.strerror)
        else:
            assert found == expected
    with pytest.raises(ValueError, match="embedded null byte"):
        read_all(["image\0.jpg"])


def test_descriptors_are_closed(files: list[str], tmp_path: Path) -> None:
    paths = [*files, str(tmp_path), "/nowhere/image.jpg"]
    read_all(paths)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        read_all(paths)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_whose_size_is_not_known_is_read_to_its_end() -> None:
    path = "/proc/self/cmdline"  # 0 bytes, says its status
    assert read_all([path, path], 16) == [Path(path).read_bytes()] * 2

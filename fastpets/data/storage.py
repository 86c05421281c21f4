"""Listing and reading files: local ones, remote ones (s3://, gs://, http://) through fsspec, and members of tar shards.

A member of a shard has the path `SHARD::OFFSET+SIZE::NAME`: where its bytes are, and its name.
"""

import os
import posixpath
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import IO, Any

import fsspec
from braceexpand import braceexpand

from fastpets.errors import FastpetsError

MEMBER = re.compile(r"(?P<shard>.+)::(?P<offset>\d+)\+(?P<size>\d+)::(?P<name>.+)", re.DOTALL)
ATTEMPTS = 4  # to read a remote file, 0.5, 1 and 2 seconds apart


def is_remote(path: str) -> bool:
    """Whether a path has a scheme."""
    return "://" in path


def name_of(path: str) -> str:
    """The file name in a path, without folders."""
    member = MEMBER.fullmatch(path)
    return posixpath.basename(member["name"] if member else path)


def read(path: str) -> bytes:
    """Reads a file's bytes. Raises OSError."""
    member = MEMBER.fullmatch(path)
    start, size = (int(member["offset"]), int(member["size"])) if member else (0, None)
    where = member["shard"] if member else path
    if is_remote(where):
        return _read_remote(where, start, None if size is None else start + size)
    # Each system call releases the interpreter's lock and the reading threads then queue for it: these three, where
    # `open` makes seven, take 20 to 30% less of the loader's time.
    file = os.open(where, os.O_RDONLY)
    try:
        return os.pread(file, os.fstat(file).st_size if size is None else size, start)
    finally:
        os.close(file)


def _read_remote(url: str, start: int, end: int | None) -> bytes:
    filesystem, path = _filesystem(url)
    attempt = 1
    while True:
        try:
            return filesystem.cat_file(path, start=start or None, end=end)
        except FileNotFoundError:
            raise
        except Exception as error:  # each of fsspec's file systems raises its own types
            if attempt == ATTEMPTS:
                raise OSError(f"{type(error).__name__}: {error}, in {ATTEMPTS} attempts") from error
        time.sleep(2.0 ** (attempt - 2))
        attempt += 1


def stamps(paths: Sequence[str], pool: Executor) -> Iterator[str]:
    """For each file a string that changes when the file is replaced: size and modification time, or "missing".

    The members of a shard have the shard's stamp, which is asked for once.
    """
    shards: dict[str, str] = {}

    def stamp(path: str) -> str:
        if member := MEMBER.fullmatch(path):
            shard = member["shard"]
            if shard not in shards:
                shards[shard] = stamp(shard)
            return shards[shard]
        return _remote_stamp(path) if is_remote(path) else _local_stamp(path)

    if paths and is_remote(paths[0]) and not MEMBER.fullmatch(paths[0]):
        return pool.map(stamp, paths)  # in parallel: each is a request
    return map(stamp, paths)


def _local_stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _remote_stamp(url: str) -> str:
    filesystem, path = _filesystem(url)
    try:
        info = filesystem.info(path)
    except Exception:  # reading the file will raise it again
        return "missing"
    return " ".join(str(info.get(name)) for name in ("size", "ETag", "LastModified", "mtime", "created"))


def normalized(folder: str) -> str:
    """A folder in the form in which the paths of `find` begin."""
    if not is_remote(folder):
        return os.path.normpath(folder)
    filesystem, root = _filesystem(folder)
    return filesystem.unstrip_protocol(root.rstrip("/"))


def find(folder: str) -> Iterator[str]:
    """Lists the files below a folder, sorted by path, without hidden files and folders.

    Raises FastpetsError if it is not a folder.
    """
    if not is_remote(folder):
        if not os.path.isdir(folder):
            found = "a file" if os.path.exists(folder) else "nothing there"
            raise FastpetsError(f"{folder}: {found}, expected a folder of images")
        return _walk(os.path.normpath(folder), frozenset())
    filesystem, root = _filesystem(folder)
    root = root.rstrip("/")
    try:
        below = filesystem.find(root)
    except Exception as error:
        raise FastpetsError(f"{folder}: {type(error).__name__}: {error}, expected a folder of images") from None
    visible = [path for path in below if not any(part.startswith(".") for part in path[len(root) :].split("/"))]
    return iter(sorted(filesystem.unstrip_protocol(path) for path in visible))


def _walk(folder: str, ancestors: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Walks depth first; follows links, but not in a cycle. Folders sort as if their names ended in a slash."""
    status = os.stat(folder)
    inode = (status.st_dev, status.st_ino)
    if inode in ancestors:
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted((f"{entry.name}/" if entry.is_dir() else entry.name) for entry in entries)
    except OSError as error:
        raise FastpetsError(f"{folder}: {error.strerror}, expected a folder that can be read") from None
    for name in found:
        if not name.startswith("."):
            path = os.path.join(folder, name.removesuffix("/"))
            yield from _walk(path, ancestors | {inode}) if name.endswith("/") else (path,)


def expand(shards: str) -> list[str]:
    """The shards that a path with braces, such as {000..003} or {a,b}, and * stands for, each brace's in its order.

    Raises FastpetsError if one is missing.
    """
    try:
        paths = list(braceexpand(shards))
    except ValueError as error:
        raise FastpetsError(f"{shards}: {error}, expected a path such as shard-{{000..099}}.tar") from None
    found: list[str] = []
    for path in paths:
        filesystem, inner = _filesystem(path)
        matches = sorted(filesystem.glob(inner)) if "*" in path else [inner] if filesystem.exists(inner) else []
        if not matches:
            raise FastpetsError(f"{path}: nothing there, expected tar shards")
        found += [filesystem.unstrip_protocol(match) if is_remote(path) else match for match in matches]
    return found


def members(shard: str) -> Iterator[str]:
    """Lists the paths of the files in a tar shard, in its order. Raises FastpetsError if it is no uncompressed tar."""
    filesystem, path = _filesystem(shard)
    try:
        with filesystem.open(path, "rb") as file:
            yield from _members(shard, file)
    except (OSError, tarfile.TarError) as error:
        raise FastpetsError(f"{shard}: {error}, expected an uncompressed tar file") from None


def _members(shard: str, file: IO[bytes]) -> Iterator[str]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isfile():
                yield f"{shard}::{member.offset_data}+{member.size}::{member.name}"


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a path, and the path in it. Raises FastpetsError if its library is not installed."""
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise FastpetsError(f"{url}: {error}") from None

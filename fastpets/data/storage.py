"""Lists and reads files: local ones, remote ones (s3://, gs://, http://) through fsspec, and members of tar shards.

A member of a shard has the path `SHARD::OFFSET+SIZE::NAME`: the byte range of its content, and its name.
"""

import os
import posixpath
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import IO, Any

import fsspec
import numpy as np
from braceexpand import braceexpand

from fastpets.errors import FastpetsError

MEMBER = re.compile(r"(?P<shard>.+)::(?P<offset>\d+)\+(?P<size>\d+)::(?P<name>.+)", re.DOTALL)
ATTEMPTS = 4  # to read a remote file; 0.5, 1 and 2 seconds apart
RETRIED_STATUSES = (408, 429)  # HTTP: timeout, too many requests; other client errors are final
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK  # a FIFO in a file's place is an error, and does not wait for a writer
CHUNK = 4096  # files that are in a thread pool's queue at a time, since each takes memory there


def is_remote(path: str) -> bool:
    """Whether a path has a scheme."""
    return "://" in path


def name_of(path: str) -> str:
    """The file name in a path, without folders."""
    member = MEMBER.fullmatch(path)
    return posixpath.basename(member["name"] if member else path)


def read(path: str) -> bytes:
    """Reads a file's bytes. Raises OSError."""
    container, start, size = _byte_range(path)
    if is_remote(container):
        return _read_remote(container, start, None if size is None else start + size)
    # Each system call releases the interpreter's lock, for which reading threads then wait. Four calls (open, fstat,
    # pread, close) instead of the seven that `open` makes save 20 to 30% of the loader's time.
    file = os.open(container, OPEN_FLAGS)
    try:
        return os.pread(file, os.fstat(file).st_size if size is None else size, start)
    finally:
        os.close(file)


class BlockReader:
    """Reads files one after another into blocks of memory: half the time of reading into new memory for each.

    The operating system maps and clears new memory page by page, so `allocate` should return memory that was used
    before. It is called for `block_bytes`, or for the size of a larger file, and returns an array (n,) uint8.
    """

    def __init__(self, allocate: Callable[[int], np.ndarray], block_bytes: int) -> None:
        self._allocate, self._block_bytes = allocate, block_bytes
        self._rest = allocate(block_bytes)

    def read(self, path: str) -> np.ndarray:
        """Reads a file's bytes, (n,) uint8. Those of a remote file are in memory of their own. Raises OSError."""
        container, start, size = _byte_range(path)
        if is_remote(container):
            return np.frombuffer(read(path), np.uint8)
        file = os.open(container, OPEN_FLAGS)
        try:
            if size is not None and size > len(self._rest):
                self._rest = self._allocate(max(size, self._block_bytes))
            count = os.preadv(file, [self._rest[:size].data], start)
            while size is None and count == len(self._rest):  # the file may go on
                needed = max(os.fstat(file).st_size + 1, 2 * count)
                self._rest = self._allocate(max(needed, self._block_bytes))
                count = os.preadv(file, [self._rest.data], start)
        finally:
            os.close(file)
        content, self._rest = self._rest[:count], self._rest[count:]
        return content


def _byte_range(path: str) -> tuple[str, int, int | None]:
    """The file that has a path's content, the first byte in it, and the number of bytes; None is all of them."""
    if "::" in path and (member := MEMBER.fullmatch(path)):
        return member["shard"], int(member["offset"]), int(member["size"])
    return path, 0, None


def _read_remote(url: str, start: int, end: int | None) -> bytes:
    filesystem, path = _filesystem(url)
    attempt = 1
    while True:
        try:
            return filesystem.cat_file(path, start=start or None, end=end)
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # each of fsspec's file systems raises its own types
            if attempt == ATTEMPTS or _is_final(error):
                raise OSError(f"{type(error).__name__}: {error} (attempts: {attempt})") from error
        time.sleep(2.0 ** (attempt - 2))
        attempt += 1


def _is_final(error: Exception) -> bool:
    """Whether a request failed with an HTTP status that does not change if the request is repeated."""
    status = getattr(error, "status" if hasattr(error, "status") else "code", None)  # aiohttp's name, and gcsfs's
    return isinstance(status, int) and 400 <= status < 500 and status not in RETRIED_STATUSES


def stamps(paths: Sequence[str], pool: Executor) -> Iterator[str]:
    """For each file a string that changes when the file is replaced: size and modification time, or "missing".

    A member of a shard has the stamp of the shard. Remote stamps are requested in parallel.
    """
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        files = [member["shard"] if (member := MEMBER.fullmatch(path)) else path for path in chunk]
        remote = [file for file in dict.fromkeys(files) if is_remote(file)]
        stamp_of = dict(zip(remote, pool.map(_remote_stamp, remote), strict=True))
        for file in files:
            if file not in stamp_of:
                stamp_of[file] = _local_stamp(file)
            yield stamp_of[file]


def _local_stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name with NUL
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _remote_stamp(url: str) -> str:
    filesystem, path = _filesystem(url)
    try:
        info = filesystem.info(path)
    except Exception:  # reading the file fails later, with a message
        return "missing"
    return " ".join(str(info.get(name)) for name in ("size", "ETag", "LastModified", "mtime", "created"))


def normalized(folder: str) -> str:
    """The folder as `find` writes it at the start of its paths."""
    if not is_remote(folder):
        return os.path.normpath(folder)
    filesystem, root = _filesystem(folder)
    return filesystem.unstrip_protocol(root.rstrip("/"))


def find(folder: str) -> Iterator[str]:
    """Lists the files below a folder, sorted by path, without hidden ones. Raises FastpetsError if it is no folder."""
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
    visible = [path for path in below if not _is_hidden(path[len(root) :])]
    return iter(sorted(filesystem.unstrip_protocol(path) for path in visible))


def _is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot; the parts "." and ".." do not count."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def _walk(folder: str, ancestors: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Walks depth first; follows links, but not in a cycle. Folders are sorted as if their names ended in a slash."""
    try:
        status = os.stat(folder)
        inode = (status.st_dev, status.st_ino)
        if inode in ancestors:
            return
        with os.scandir(folder) as entries:
            found = sorted((f"{entry.name}/" if entry.is_dir() else entry.name) for entry in entries)
    except OSError as error:
        raise FastpetsError(f"{folder}: {error.strerror}, expected a folder that can be read") from None
    for name in found:
        if not name.startswith("."):
            path = os.path.join(folder, name.removesuffix("/"))
            yield from _walk(path, ancestors | {inode}) if name.endswith("/") else (path,)


def expand(shards: str) -> list[str]:
    """Expands braces, such as {000..003} or {a,b}, in their order, and *, sorted, to the paths of shards.

    Raises FastpetsError if one is missing.
    """
    try:
        paths = list(braceexpand(shards))
    except ValueError as error:
        raise FastpetsError(f"{shards}: {error}, expected a path such as shard-{{000..099}}.tar") from None
    found: list[str] = []
    for path in paths:
        filesystem, inner = _filesystem(path)
        try:
            matches = sorted(filesystem.glob(inner)) if "*" in path else [inner] if filesystem.exists(inner) else []
        except Exception as error:
            raise FastpetsError(f"{path}: {type(error).__name__}: {error}, expected tar shards") from None
        if not matches:
            raise FastpetsError(f"{path}: nothing there, expected tar shards")
        found += [filesystem.unstrip_protocol(match) if is_remote(path) else match for match in matches]
    return found


def members(shard: str, read_suffix: str) -> Iterator[tuple[str, bytes | None]]:
    """Lists the files in a tar shard, in its order, without hidden ones.

    Yields each file's path, and its content if its name ends in `read_suffix`, else None. Raises FastpetsError if the
    shard is not an uncompressed tar file.
    """
    filesystem, path = _filesystem(shard)
    try:
        with filesystem.open(path, "rb") as file:
            yield from _members(shard, file, read_suffix)
    except FastpetsError:
        raise
    except Exception as error:  # tarfile's, or of any type: see _read_remote
        raise FastpetsError(f"{shard}: {error}, expected an uncompressed tar file") from None


def _members(shard: str, file: IO[bytes], read_suffix: str) -> Iterator[tuple[str, bytes | None]]:
    files: dict[str, tarfile.TarInfo] = {}  # by name, for hard links
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            target = files.get(posixpath.normpath(member.linkname)) if member.islnk() else member
            if target is None:
                raise FastpetsError(
                    f"{shard}: {member.name} is a hard link to {member.linkname}, which is not before it in the shard; "
                    "write the shard again, without hard links"
                )
            if target.isfile():
                files[posixpath.normpath(member.name)] = target
                if not _is_hidden(member.name):
                    content = tar.extractfile(target) if member.name.endswith(read_suffix) else None
                    path = f"{shard}::{target.offset_data}+{target.size}::{member.name}"
                    yield path, None if content is None else content.read()


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a path, and the path in it. Raises FastpetsError if its library is not installed."""
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise FastpetsError(f"{url}: {error}") from None

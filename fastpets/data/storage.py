"""Lists and reads files: local ones, remote ones (s3://, gs://, http://) through fsspec, and members of tar shards.

A member of a shard has the path `SHARD::OFFSET+SIZE::NAME`: the byte range of its content, and its name.
"""

import os
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import fsspec
import numpy as np
import xxhash
from braceexpand import braceexpand

from fastpets.errors import FastpetsError, reason

MEMBER = re.compile(r"(?P<shard>.+?)::(?P<offset>\d+)\+(?P<size>\d+)::(?P<name>.+)", re.DOTALL)
ATTEMPTS = 4  # to read a remote file; 0.5, 1 and 2 seconds apart
RETRIED_STATUSES = (408, 429)  # HTTP: timeout, too many requests; other client errors are final
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK  # a FIFO in a file's place is an error, and does not wait for a writer
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k")
) | {".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
# Folders that systems make for thumbnails, deleted files and copies of metadata.
SYSTEM_FOLDERS = ("@eaDir", "#recycle", "#snapshot", "@Recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX")
CHUNK = 4096  # files that are in a thread pool's queue at a time, since each takes memory there
MISSING = "missing"  # the stamp of what is not there


def is_remote(path: str) -> bool:
    """Whether a path has a scheme."""
    return "://" in path


def name_of(path: str) -> str:
    """The file name in a path, without folders."""
    member = MEMBER.fullmatch(path)
    return posixpath.basename(member["name"] if member else path)


def container(path: str) -> str:
    """The file that has a path's content: of a member of a shard, the shard."""
    return _byte_range(path)[0]


def absolute(path: str) -> str:
    """The path from the root of its file system, without "." and ".."; as it is if it is remote."""
    return path if is_remote(path) else os.path.abspath(path)


def is_image(path: str) -> bool:
    """Whether a file has the suffix of an image."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


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
    filesystem, path = filesystem_of(url)
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


def exists(path: str) -> bool:
    """Whether there is such a file, or the shard of such a member."""
    with ThreadPoolExecutor(1) as pool:
        return next(stamps([path], pool)) != MISSING


def stamps(paths: Sequence[str], pool: Executor) -> Iterator[str]:
    """For each file a string that changes when the file is replaced: size and modification time, or "missing".

    A member of a shard has the stamp of the shard. Remote stamps are requested in parallel.
    """
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        files = [container(path) for path in chunk]
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
        return MISSING
    return f"{status.st_size} {status.st_mtime_ns}"


def _remote_stamp(url: str) -> str:
    filesystem, path = filesystem_of(url)
    try:
        info = filesystem.info(path)
    except Exception:  # reading the file fails later, with a message
        return MISSING
    return " ".join(str(info.get(name)) for name in ("size", "ETag", "LastModified", "mtime", "created"))


def normalized(folder: str) -> str:
    """The folder as `find` writes it at the start of its paths."""
    if not is_remote(folder):
        return os.path.normpath(folder)
    filesystem, root = filesystem_of(folder)
    return filesystem.unstrip_protocol(root.rstrip("/"))


def expanded(path: str) -> str:
    """The path with ~ at its start replaced by the home folder, unless there is such a file."""
    return path if not path.startswith("~") or os.path.lexists(path) else os.path.expanduser(path)


def find(folder: str, links: set[str] | None = None) -> Iterator[str]:
    """Lists the files below a folder, sorted by path, without hidden ones and SYSTEM_FOLDERS.

    Adds the paths of all symbolic links to `links`, see `repeated`. Raises FastpetsError if it is no folder.
    """
    if not is_remote(folder):
        if not os.path.isdir(folder):
            found = "a file" if os.path.exists(folder) else "nothing there"
            raise FastpetsError(f"{folder}: {found}, expected a folder of images")
        return _walk(os.path.normpath(folder), frozenset(), None, set() if links is None else links)
    filesystem, root = filesystem_of(folder)
    root = root.rstrip("/")
    try:
        below = filesystem.find(root)
    except Exception as error:
        raise FastpetsError(f"{folder}: {type(error).__name__}: {error}, expected a folder of images") from None
    visible = [path for path in below if not is_hidden(path[len(root) :])]
    return iter(sorted(filesystem.unstrip_protocol(path) for path in visible))


def is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot, except "." and "..", or is one of SYSTEM_FOLDERS."""
    return any(part in SYSTEM_FOLDERS or (part[:1] == "." and part not in (".", "..")) for part in path.split("/"))


def _walk(
    folder: str, ancestors: frozenset[tuple[int, int]], visited: set[tuple[int, int]] | None, links: set[str]
) -> Iterator[str]:
    """Walks depth first. Folders are sorted as if their names ended in a slash.

    Follows links, but not to a folder that contains them. Below a link, each folder is visited once: `visited` are
    those so far. Otherwise n folders that link to each other would be listed in n! ways.
    """
    try:
        status = os.stat(folder)
        inode = (status.st_dev, status.st_ino)
        if inode in ancestors or (visited is not None and inode in visited):
            return
        if visited is not None:
            visited.add(inode)
        with os.scandir(folder) as entries:
            found = []
            for entry in entries:
                if not is_hidden(entry.name):
                    found.append(f"{entry.name}/" if _is_folder(entry) else entry.name)
                    if entry.is_symlink():
                        links.add(os.path.join(folder, entry.name))
    except OSError as error:
        raise FastpetsError(f"{folder}: {reason(error)}, expected a folder that can be read") from None
    for name in sorted(found):
        path = os.path.join(folder, name.removesuffix("/"))
        if name.endswith("/"):
            below_link = set() if visited is None and path in links else visited
            yield from _walk(path, ancestors | {inode}, below_link, links)
        else:
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; like a broken link it is a file that cannot be read
        return False


def repeated(paths: Sequence[str], links: set[str]) -> np.ndarray:
    """Whether each path leads to the same file as another one: (N,) bool, False for one of them.

    That one is the file itself, if it is among the paths, or else the first. `links` are those that `find` met.
    """
    if not links:
        return np.zeros(len(paths), bool)
    real_folders: dict[str, tuple[str, bool]] = {}  # and whether there is a link in the path
    files, is_linked = np.zeros(len(paths), np.uint64), np.zeros(len(paths), bool)
    for i, path in enumerate(paths):
        folder, _, name = path.rpartition("/")
        if folder not in real_folders:
            parts = folder.split("/")
            below_link = any("/".join(parts[:count]) in links for count in range(1, len(parts) + 1))
            real_folders[folder] = os.path.realpath(folder), below_link
        real, is_linked[i] = real_folders[folder]
        file = f"{real}/{name}"
        if path in links:
            file, is_linked[i] = os.path.realpath(path), True
        files[i] = xxhash.xxh64_intdigest(os.fsencode(file))
    order = np.lexsort((is_linked, files))  # stable
    follows_same = np.zeros(len(paths), bool)
    follows_same[order[1:]] = files[order[1:]] == files[order[:-1]]
    return follows_same


def expand(shards: str, expected: str = "tar shards") -> list[str]:
    """Expands braces, such as {000..003} or {a,b}, in their order, and *, sorted, to the paths of shards, each once.

    Raises FastpetsError if one is missing, which says what was `expected`.
    """
    try:
        paths = list(braceexpand(shards))
    except ValueError as error:
        raise FastpetsError(f"{shards}: {error}, expected a path such as shard-{{000..099}}.tar") from None
    found: list[str] = []
    for path in paths:
        filesystem, inner = filesystem_of(path)
        try:
            matches = sorted(filesystem.glob(inner)) if "*" in path else [inner] if filesystem.exists(inner) else []
        except Exception as error:
            raise FastpetsError(f"{path}: {type(error).__name__}: {error}, expected {expected}") from None
        if not matches:
            raise FastpetsError(f"{path}: nothing there, expected {expected}")
        found += [filesystem.unstrip_protocol(match) if is_remote(path) else match for match in matches]
    return list(dict.fromkeys(found))


def filesystem_of(url: str) -> tuple[Any, str]:
    """fsspec's file system for a path, and the path in it. Raises FastpetsError if its library is not installed."""
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise FastpetsError(f"{url}: {error}") from None

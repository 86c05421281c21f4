"""The folders of cached datasets: which there are, which are in use, and the removal of others to make room."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastpets.errors import FastpetsError, reason
from fastpets.utils import system
from fastpets.utils.atomic import write_atomically

DATASET_FOLDER = re.compile("[0-9a-f]{32}")
PIXELS, INDEX = ".pixels", ".index"
# What an index has for each image. The key is a hash of all that its pixels depend on.
ENTRY = np.dtype([("key", np.uint64), ("offset", np.int64), ("checksum", np.uint64)])
ABOUT = "dataset.json"  # says what is cached in a folder
ATTEMPTS = 10  # to make a folder that another process may be removing
IN_USE = "in-use"  # a file that is locked as long as a process uses the folder; its time says when one last did


class CachedDataset(NamedTuple):
    """A folder of cached images."""

    folder: Path
    root: str  # where the images come from
    num_images: int
    num_bytes: int  # on disk
    last_used: float  # seconds since 1970


def pixels_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """The folder of cached datasets below `cache_dir`, by default the user's cache folder; made if it is missing.

    Raises FastpetsError if it cannot be made.
    """
    try:
        folder = (system.cache_dir() if cache_dir is None else Path(cache_dir)) / "pixels"
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error.filename, reason(error), is_temporary=False) from None
    return folder


def unwritable(folder: str | os.PathLike[str], problem: object, is_temporary: bool) -> FastpetsError:
    """The error about a folder of caches; a temporary one is not in `cache_dir`, but where `cache` says."""
    parameter = "cache" if is_temporary else "cache_dir"
    return FastpetsError(f"{parameter}: {folder}: {problem}, expected a folder to write to")


def temporary_folder(shared_memory: Path) -> Path:
    """A folder in shared memory for the processes that this process's parent started.

    Removes what processes that were killed have left there.
    """
    name = f"fastpets-{os.getuid()}"
    for folder in shared_memory.glob(f"{name}-*"):
        for dataset in cached_datasets(folder):
            remove(dataset.folder)
    return shared_memory / f"{name}-{os.getppid()}"


def cached_datasets(cache_folder: Path) -> list[CachedDataset]:
    """The datasets in a cache folder, the one used least recently first. Other files and folders are ignored."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in cache_folder.iterdir():
            if DATASET_FOLDER.fullmatch(folder.name):
                with contextlib.suppress(OSError, ValueError):  # being made or removed by another process
                    found.append(_described(folder))
    return sorted(found, key=lambda dataset: dataset.last_used)


def _described(folder: Path) -> CachedDataset:
    files = [(entry.name, entry.stat()) for entry in os.scandir(folder)]
    num_images = sum(status.st_size // ENTRY.itemsize for name, status in files if name.endswith(INDEX))
    num_bytes = sum(status.st_blocks * 512 for _, status in files)
    root = json.loads((folder / ABOUT).read_text())["root"]
    return CachedDataset(folder, root, num_images, num_bytes, (folder / IN_USE).stat().st_mtime)


def num_bytes_on_disk(cache_folder: Path) -> int:
    """The disk space that all datasets in a cache folder take."""
    return sum(dataset.num_bytes for dataset in cached_datasets(cache_folder))


def open_folder(folder: Path, root: str) -> int:
    """Makes a dataset's folder if it is missing, and marks it as in use until the returned descriptor is closed.

    Raises OSError.
    """
    for _ in range(ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):  # another process is removing the folder
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / ABOUT).exists():
                write_atomically(folder / ABOUT, lambda staging: staging.write_text(json.dumps({"root": root})))
            lock = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o600)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(lock), os.stat(folder / IN_USE)):
                os.utime(lock)
                return lock
            os.close(lock)
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def remove(folder: Path) -> bool:
    """Removes a dataset's folder, unless a process uses it. Returns whether it did."""
    with contextlib.ExitStack() as stack:
        try:
            lock = os.open(folder / IN_USE, os.O_RDWR)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                return False
            # A file system without locks. A process that uses the folder decodes its images again.
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # if it is empty
    return True


def make_room(cache_folder: Path, needed: int, max_bytes: int, keep: Path) -> None:
    """Removes the datasets used least recently, except `keep`, until the cache folder has room for `needed` bytes."""
    datasets = cached_datasets(cache_folder)
    num_bytes = sum(dataset.num_bytes for dataset in datasets)
    for dataset in datasets:
        if num_bytes + needed <= max_bytes:
            return
        if dataset.folder != keep and remove(dataset.folder):
            num_bytes -= dataset.num_bytes

"""`fastpets cache`: lists the decoded images and the unpacked Parquet files that are kept, or removes them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from tyro.conf import Positional, arg

from fastpets.errors import InvalidArgumentError, counted, one_line


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """List what is kept in files, decoded images (by `--cache disk`) and unpacked Parquet files, or remove it.

    With `clear`, the exit status is 1 if something is kept because a process uses it, else 0.
    """

    action: Positional[Literal["list", "clear"]] = "list"
    """list or clear."""
    data: Annotated[Positional[str | None], arg(metavar="DATA")] = None
    """Only this dataset or file, as `list` names it. Default: all."""
    cache_dir: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder of the cache of decoded images. Default: the user's cache folder."""


class Entry(NamedTuple):
    """A dataset of decoded images, or an unpacked Parquet file."""

    name: str
    what: str
    num_bytes: int
    last_used: float  # seconds since 1970
    remove: Callable[[], bool]  # returns whether it did; not what a process uses


def cache(config: CacheConfig) -> int:
    """Lists or removes the entries, and returns the exit status."""
    from fastpets.data.storage import is_remote
    from fastpets.loading.cached_datasets import pixels_folder

    folder = pixels_folder(config.cache_dir)
    entries = found(folder)
    if config.data is not None:
        name = config.data if is_remote(config.data) else os.path.abspath(config.data)
        entries = [entry for entry in entries if entry.name == name]
        if not entries:
            raise InvalidArgumentError(f"data: {name}: not in the cache {folder}; `fastpets cache` lists what is there")
    num_bytes, num_in_use = 0, 0
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        line = f"{used}  {entry.what:>18}  {entry.num_bytes / 1e9:>8.2f} GB  {one_line(entry.name)}"
        if config.action == "clear" and not entry.remove():
            line += "  in use by a process: not removed"
            num_in_use += 1
        else:
            num_bytes += entry.num_bytes
        print(line)
    what = "removed" if config.action == "clear" else "in the cache"
    count = len(entries) - num_in_use
    print(f"{what}: {num_bytes / 1e9:.2f} GB, {count} {'entry' if count == 1 else 'entries'} in {folder.parent}")
    return 1 if num_in_use else 0


def found(folder: Path) -> list[Entry]:
    """What is in a cache folder of decoded images, and all unpacked Parquet files; the least recently used first."""
    from fastpets.data.parquet import remove_unpacked, unpacked_files
    from fastpets.loading.cached_datasets import cached_datasets, remove

    entries = [
        Entry(
            each.root, counted(each.num_images, "image"), each.num_bytes, each.last_used, partial(remove, each.folder)
        )
        for each in cached_datasets(folder)
    ]
    for file in unpacked_files():
        status = file.stat()
        entries.append(
            Entry(str(file), "unpacked Parquet", status.st_size, status.st_mtime, partial(remove_unpacked, file))
        )
    return sorted(entries, key=lambda entry: entry.last_used)


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["cache", *sys.argv[1:]]))

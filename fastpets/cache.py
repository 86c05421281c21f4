"""`fastpets cache`: lists the datasets whose decoded images are kept in files, or removes them."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from fastpets.errors import InvalidArgumentError, one_line


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """List the datasets whose decoded images are kept in files (by `--cache disk`), or remove them.

    With `clear`, the exit status is 1 if a dataset is kept because a process uses it, else 0.
    """

    action: Positional[Literal["list", "clear"]] = "list"
    """list or clear."""
    data: Annotated[Positional[str | None], arg(metavar="DATA")] = None
    """Only this dataset, as `list` names it. Default: all."""
    cache_dir: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder of the cache. Default: the user's cache folder."""


def cache(config: CacheConfig) -> int:
    """Lists or removes cached datasets, and returns the exit status."""
    from fastpets.data.storage import is_remote
    from fastpets.loading.cached_datasets import cached_datasets, pixels_folder, remove

    folder = pixels_folder(config.cache_dir)
    datasets = cached_datasets(folder)
    if config.data is not None:
        root = config.data if is_remote(config.data) else os.path.abspath(config.data)
        datasets = [dataset for dataset in datasets if dataset.root == root]
        if not datasets:
            raise InvalidArgumentError(f"data: {root}: not in the cache {folder}; `fastpets cache` lists what is there")
    num_bytes, num_in_use = 0, 0
    for dataset in datasets:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(dataset.last_used))
        line = f"{used}  {dataset.num_images:>9,} images  {dataset.num_bytes / 1e9:>8.2f} GB  {one_line(dataset.root)}"
        if config.action == "clear" and not remove(dataset.folder):
            line += "  in use by a process: not removed"
            num_in_use += 1
        else:
            num_bytes += dataset.num_bytes
        print(line)
    what = "removed" if config.action == "clear" else "in the cache"
    print(f"{what}: {num_bytes / 1e9:.2f} GB, {len(datasets) - num_in_use} datasets in {folder}")
    return 1 if num_in_use else 0


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["cache", *sys.argv[1:]]))

"""One of the processes of tests/loading/test_processes.py: loads cached epochs and writes what it took as JSON."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import fsspec
import torch.distributed as dist

from fastpets import Loader
from fastpets.loading.memory_cache import MemoryCache
from fastpets.utils import system


def main(folder: str, out: str, num_processors: int, free: int) -> None:
    """Pretends that the machine has so many processors, and so many bytes of memory free."""
    dist.init_process_group("gloo")
    files = fsspec.filesystem("memory")
    for file in sorted(Path(folder).iterdir()):
        files.pipe_file(f"/{file.name}", file.read_bytes())
    in_memory = [f"memory://{name.lstrip('/')}" for name in files.ls("/", detail=False)]
    with (
        mock.patch.object(system, "OWN_CGROUP", Path("/nowhere")),
        mock.patch.object(os, "sched_getaffinity", return_value=range(num_processors)),
        mock.patch.object(system.psutil, "virtual_memory", return_value=SimpleNamespace(available=free)),
    ):
        found = {"files": report(folder), "in memory": report(in_memory)}
    Path(out, f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def report(source: Any) -> dict[str, Any]:
    """Loads three epochs with a cache on the host."""
    loader = Loader(source, size=16, batch_size=2, cache="host", device="cpu", label_from="none")
    filled = []
    for _ in range(3):
        for _ in loader:
            pass
        dist.barrier()
        loader.cache.refresh()
        filled.append(int(loader.cache.filled.sum()))
    cache = loader.cache
    is_own = isinstance(cache, MemoryCache)
    stored = 0 if is_own else sum(file.stat().st_size for file in Path(cache.folder).rglob("*.pixels"))
    dist.barrier()  # the files of a process end with its loader
    return {
        "num_workers": loader.num_workers,
        "where": loader.cache_reason,
        "own_bytes": cache.block.numel() if is_own else 0,
        "shared_bytes": stored,
        "needed": int((3 * cache.sizes.astype(int).prod(axis=1)).sum()),
        "filled": filled,
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

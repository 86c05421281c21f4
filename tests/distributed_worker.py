"""One of the processes of tests/loading/test_distributed.py: loads epochs and writes ids and digests as JSON."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DistributedSampler, WeightedRandomSampler

from fastpets import Loader

EPOCHS = 2


def digests(loader: Loader, *, together: bool = False) -> list[list[tuple[int, str]]]:
    """Runs an epoch: a list of (id, digest of the pixels) per batch. `together` adds an all-reduce to each step."""
    found = []
    for batch in loader:
        if together:
            torch.distributed.all_reduce(torch.ones(1))  # hangs if another process takes fewer steps
        images = [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16] for image in batch.images]
        found.append(list(zip(batch.ids.tolist(), images, strict=True)))
    return found


def main(folder: str, out: str, settings: dict[str, Any]) -> None:
    with_samplers = settings.pop("samplers", False)
    common = {"size": 16, "device": "cpu", **settings}
    if with_samplers:
        loaders = {
            "weighted": Loader(folder, augment=True, sampler=WeightedRandomSampler([1.0] * 10, 12), **common),
        }
    else:
        loaders = {"train": Loader(folder, augment=True, **common), "valid": Loader(folder, **common)}
    torch.distributed.init_process_group("gloo")  # after the loaders are made: they read the rank when an epoch starts
    if with_samplers:
        sampler = DistributedSampler(range(10))
        loaders["distributed"] = Loader(folder, augment=True, sampler=sampler, drop_last=False, **common)
    found: dict[str, Any] = {
        name: [digests(loader, together=name != "valid") for _ in range(EPOCHS)] for name, loader in loaders.items()
    }
    found["lengths"] = {name: len(loader) for name, loader in loaders.items()}
    Path(out, f"{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))

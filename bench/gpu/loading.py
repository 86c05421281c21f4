"""Times loading alone: fastpets with its defaults, uncached and cached, and other libraries' loaders."""

import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch

from bench.gpu.part import Part, linked_images
from bench.peers import PEERS
from fastpets import Loader
from fastpets.data.sources import from_folder
from fastpets.utils.system import num_processors, resolve_num_workers

CASES: dict[str, tuple[str, dict[str, Any]]] = {  # by name: the target in images/s on an H100, and settings
    "loader, uncached": ("8,000", {}),
    "loader, cached on the device": ("100,000", {"cache": "device"}),
    "loader, cached on the host": ("", {"cache": "host"}),
    "loader, uncached, float32": ("", {"dtype": torch.float32}),  # as those of the others
}
PREFETCHED = 2  # batches that each worker process of torch's DataLoader keeps in shared memory


def main() -> None:
    part = Part(__doc__)
    scale = part.scale
    with linked_images(scale.num_images) as folder:
        for name, (target, settings) in CASES.items():
            found = rate_of(part, folder, batch_size=scale.batch_size, **settings)
            part.add(name, f"{found['images_per_sec']:,.0f} images/s", target, **found)
            if "cache" in settings:
                host_ms = f"{found['host_ms']:.2f} ms"
                part.add(f"  the host's work for {found['batch']:.0f} images", host_ms, target and "1.2 ms for 256")
            else:
                part.add("  processors busy", f"{found['processors_busy']:.1f} of {num_processors()}")
        for name in ("torchvision", "fastai"):
            peer(part, folder, name)


def rate_of(part: Part, folder: Path, **settings: Any) -> dict[str, float]:
    """Returns `measured` of a fastpets Loader, after an epoch that fills its cache, if it has one."""
    usual = {"augment": True, "size": part.scale.size, "dtype": torch.float16, "device": part.device, "decoder": "dali"}
    loader = Loader(from_folder(folder), **usual | settings)
    if loader.cache is not None:
        for _ in loader:
            pass
    return measured(part, chain.from_iterable(repeat(loader)), lambda images, labels: None)


def measured(part: Part, batches: Iterator[Any], use: Callable[[torch.Tensor, torch.Tensor], Any]) -> dict[str, float]:
    """Returns images per second, the calling thread's CPU time per batch in ms, the mean number of processors that this
    process keeps busy, and images per batch."""
    for _ in range(4):
        use(*next(batches))
    part.wait()
    num_batches = num_images = 0
    started, own, all_threads = time.perf_counter(), time.thread_time(), time.process_time()
    while time.perf_counter() - started < part.scale.seconds:
        images, labels = next(batches)
        use(images, labels)
        num_batches, num_images = num_batches + 1, num_images + len(labels)
    own = time.thread_time() - own
    part.wait()
    passed = time.perf_counter() - started
    return {
        "images_per_sec": num_images / passed,
        "host_ms": 1000 * own / num_batches,
        "processors_busy": (time.process_time() - all_threads) / passed,
        "batch": num_images / num_batches,
    }


def peer(part: Part, folder: Path, name: str) -> None:
    """Times another library's loader: as many worker processes, batches as large, up to float32 on the device."""
    row, num_workers, batch_size = f"{name}, float32", resolve_num_workers(None), part.scale.batch_size
    needed = PREFETCHED * num_workers * batch_size * 3 * 224 * 224 * 4
    if (free := shutil.disk_usage("/dev/shm").free) < needed:
        part.add(row, f"/dev/shm: {free / 2**20:,.0f} MiB free", f"needs {needed / 2**20:,.0f} MiB")
    elif name == "fastai" and (part.dry_run or importlib.util.find_spec(name) is None):
        part.add(row, "not in a dry run" if part.dry_run else "not installed")
    else:
        paths = [str(path) for path in sorted(folder.glob("*.jpg"))]
        labels = [number % 37 for number in range(len(paths))]
        made = PEERS[name](paths, labels, num_workers, batch_size=batch_size, device=part.device)

        def move(images: torch.Tensor, labels: torch.Tensor) -> None:
            images.to(part.device, non_blocking=True), labels.to(part.device, non_blocking=True)

        found = measured(part, chain.from_iterable(repeat(made)), move)
        part.add(row, f"{found['images_per_sec']:,.0f} images/s", **found)


if __name__ == "__main__":
    sys.exit(main())

"""Times loading alone: fastpets uncached, over a sweep of settings, fastpets cached, and other libraries."""

import importlib.util
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
from fastpets.loading import dali_decoding
from fastpets.utils.system import num_processors

# Settings are swept in this order, each with the best values of those before it.
SWEEP: dict[str, list[Any]] = {
    "num_workers": [4, 8, 16, 32],
    "batch_size": [64, 128, 256, 512],
    "hw_decoder_load": [0.0, 0.35, 0.65, 1.0],
    "decode_ahead": [2, 3, 4],  # chunks in DALI's queue
}
DEFAULTS = {
    "num_workers": num_processors(),
    "batch_size": 256,
    "hw_decoder_load": 0.0,
    "decode_ahead": dali_decoding.DECODE_AHEAD,
}
PEERS_SECONDS = 6


def main() -> None:
    part = Part(__doc__)
    count, seconds, sweep = 7390, 1.2, SWEEP
    if part.dry_run:
        count, seconds, sweep = 64, 0.2, {name: values[:1] for name, values in SWEEP.items()}
    with linked_images(count) as folder:
        best, found = dict(DEFAULTS), []
        for name, values in sweep.items():
            for value in values:
                settings = best | {name: value}
                found.append(settings | rate_of(part, folder, seconds, **settings))
                part.add(sweep=found)
            best = {key: max(found, key=lambda row: row["images_per_sec"])[key] for key in DEFAULTS}
        part.add(best=max(found, key=lambda row: row["images_per_sec"]))
        part.add(uncached=rate_of(part, folder, 2 * seconds, **DEFAULTS))
        for where in ("device", "host"):
            part.add(**{f"cached_{where}": rate_of(part, folder, 2 * seconds, cache=where, **DEFAULTS)})
        peers(part, folder)


def rate_of(part: Part, folder: Path, seconds: float, *, decode_ahead: int, **settings: Any) -> dict[str, float]:
    """Returns `measured` of a fastpets Loader, after an epoch that fills its cache, if it has one."""
    dali_decoding.DECODE_AHEAD = decode_ahead
    settings |= {"device": part.device, "decoder": "dali"}
    loader = Loader(from_folder(folder), augment=True, dtype=torch.float16, **settings)
    if loader.cache is not None:
        for _ in loader:
            pass
    return measured(part, chain.from_iterable(repeat(loader)), seconds, lambda images, labels: None)


def measured(
    part: Part, batches: Iterator[Any], seconds: float, use: Callable[[torch.Tensor, torch.Tensor], Any]
) -> dict[str, float]:
    """Returns images per second, the calling thread's CPU time per batch in ms, the mean number of processors that this
    process keeps busy, and images per batch."""
    for _ in range(4):
        use(*next(batches))
    part.wait()
    num_batches = num_images = 0
    started, own, all_threads = time.perf_counter(), time.thread_time(), time.process_time()
    while time.perf_counter() - started < seconds:
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


def peers(part: Part, folder: Path) -> None:
    """Times torchvision's DataLoader and fastai, with one worker per processor, up to batches on the device."""
    paths = [str(path) for path in sorted(folder.glob("*.jpg"))]
    labels = [number % 37 for number in range(len(paths))]

    def move(images: torch.Tensor, labels: torch.Tensor) -> None:
        images.to(part.device, non_blocking=True), labels.to(part.device, non_blocking=True)

    for name in ("torchvision", "fastai"):
        if name == "fastai" and (part.dry_run or importlib.util.find_spec("fastai") is None):
            part.add(fastai="not in a dry run" if part.dry_run else "not installed")
            continue
        made = PEERS[name](paths, labels, num_processors(), device=part.device)
        batches = chain.from_iterable(repeat(made))
        part.add(**{name: measured(part, batches, 0.2 if part.dry_run else PEERS_SECONDS, move)})


if __name__ == "__main__":
    main()

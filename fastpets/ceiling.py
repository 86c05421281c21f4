"""`fastpets ceiling`: compares the speed of training with that of training on batches in memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, cycle, islice, repeat
from typing import TYPE_CHECKING, Any

from fastpets.errors import FastpetsError
from fastpets.runs.config import LearnerConfig
from fastpets.utils.progress import track
from fastpets.utils.validation import check_range

if TYPE_CHECKING:
    import torch

    from fastpets.loading.batch import Batch

WARM_UP_STEPS = 3  # libraries choose algorithms and allocate memory in the first steps


@dataclass(frozen=True, kw_only=True)
class CeilingConfig(LearnerConfig):
    """Compare the speed of training with its ceiling: the speed of training on batches that are already in memory.

    Takes the flags of `fastpets train` that affect its speed. Writes no files.
    """

    num_batches: int = 8
    """Batches to keep in memory."""
    seconds: float = 15.0
    """Duration of each of the three measurements."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("num_batches", self.num_batches, 1, 1_000_000)
        check_range("seconds", self.seconds, 0.001, 1e6)


def ceiling(config: CeilingConfig) -> int:
    """Measures loading alone, training on batches in memory, and training on loaded batches; prints a line for each."""
    from fastpets.training import distributed

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise FastpetsError("ceiling: started by torchrun with several processes, expected one; start it by itself")
    try:
        rates = measured_rates(config)
    finally:
        distributed.stop()
    print(f"{'':30}{'images/s':>9}")
    for name, rate in rates.items():
        print(f"{name:30}{rate:9.1f}")
    _, in_memory, loaded = rates.values()
    print(f"training reaches {min(1, loaded / in_memory):.0%} of its speed with batches in memory")
    return 0


def measured_rates(config: CeilingConfig) -> dict[str, float]:
    """Images per second of the three measurements, by what they measure."""
    from fastpets.runs.build import build_learner, set_up_process

    learner = build_learner(config, set_up_process(config))
    loader = learner.train
    if loader.cache is not None:
        for _ in track(loader, "filling the cache", len(loader)):
            pass

    def train(batch: Batch) -> None:
        learner.train_step.step(*batch)

    learner.train_step.train_mode()
    kept = cycle(list(islice(loader, config.num_batches)))
    return {
        "loading alone": images_per_sec(forever(loader), lambda batch: None, config.seconds, learner.device),
        "training, batches in memory": images_per_sec(kept, train, config.seconds, learner.device),
        "training, batches loaded": images_per_sec(forever(loader), train, config.seconds, learner.device),
    }


def forever(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Repeats a loader's epochs endlessly."""
    return chain.from_iterable(repeat(batches))


def images_per_sec(
    batches: Iterator[Batch], use: Callable[[Batch], Any], seconds: float, device: torch.device
) -> float:
    """Calls `use` with each batch for at least `seconds`, after a warm-up, and returns images per second."""
    import torch

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(WARM_UP_STEPS):
        use(next(batches))
    synchronize()
    num_images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        batch = next(batches)
        use(batch)
        num_images += len(batch.labels)
    synchronize()
    return num_images / (time.perf_counter() - started)


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["ceiling", *sys.argv[1:]]))

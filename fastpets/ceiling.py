"""`fastpets ceiling`: measures how much of its speed training loses to loading."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, cycle, islice, repeat
from typing import TYPE_CHECKING, Any

from fastpets.runs.config import TrainConfig
from fastpets.utils.progress import track
from fastpets.utils.validation import check_range

if TYPE_CHECKING:
    import torch

    from fastpets.loading.batch import Batch
    from fastpets.loading.loader import Loader

WARM_UP_STEPS = 3  # in the first steps, algorithms are chosen and memory is allocated


@dataclass(frozen=True, kw_only=True)
class CeilingConfig(TrainConfig):
    """Measure how fast training would be if loading took no time, and how fast it is.

    Takes the flags of `fastpets train`. Writes no files.
    """

    num_batches: int = 8
    """Batches that are kept in memory."""
    seconds: float = 15.0
    """Duration of each of the three measurements."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("num_batches", self.num_batches, 1, 1_000_000)
        check_range("seconds", self.seconds, 0.001, 1e6)


class Replay:
    """The first batches of a loader's next epoch, repeated, in memory; as many batches per epoch as the loader has.

    All other attributes are the loader's.
    """

    def __init__(self, loader: Loader, num_batches: int) -> None:
        self.loader = loader
        self.batches = list(islice(loader, num_batches))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return islice(cycle(self.batches), len(self.loader))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def ceiling(config: CeilingConfig) -> int:
    """Measures loading alone, training on batches in memory, and training on loaded batches; prints a line for each."""
    from fastpets.runs.build import build_learner, set_up_process
    from fastpets.training import distributed

    try:
        learner = build_learner(config, set_up_process(config))
        loader = learner.train
        if loader.cache is not None:
            for _ in track(loader, "filling the cache", len(loader)):
                pass

        def train(batch: Batch) -> None:
            learner.train_step.step(*batch)

        learner.train_step.train_mode()
        replay = Replay(loader, config.num_batches)
        rates = {
            "loading alone": images_per_sec(forever(loader), lambda batch: None, config.seconds, learner.device),
            "training, batches in memory": images_per_sec(forever(replay), train, config.seconds, learner.device),
            "training, batches loaded": images_per_sec(forever(loader), train, config.seconds, learner.device),
        }
    finally:
        distributed.stop()
    print(f"{'':30}{'images/s':>9}")
    for name, rate in rates.items():
        print(f"{name:30}{rate:9.1f}")
    _, in_memory, loaded = rates.values()
    print(f"training runs at {min(1, loaded / in_memory):.0%} of its speed with batches in memory")
    return 0


def forever(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Repeats a loader's epochs endlessly."""
    return chain.from_iterable(repeat(batches))


def images_per_sec(
    batches: Iterator[Batch], use: Callable[[Batch], Any], seconds: float, device: torch.device
) -> float:
    """Images per second over at least `seconds`, after a warm-up, when `use` is called with each batch."""
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
    from fastpets.__main__ import main

    sys.exit(main(["ceiling", *sys.argv[1:]]))

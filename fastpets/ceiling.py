"""`python -m fastpets.ceiling`: how fast training would be if loading cost nothing, beside how fast it is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice, repeat
from typing import TYPE_CHECKING, Any

from fastpets.command import run_command
from fastpets.errors import FastpetsError
from fastpets.runs.config import TrainConfig
from fastpets.utils.progress import track

if TYPE_CHECKING:
    import torch

    from fastpets.loading.batch import Batch
    from fastpets.loading.loader import Loader

WARM_UP = 3  # steps before the clock starts: algorithms are chosen and memory is taken in the first ones


@dataclass(frozen=True, kw_only=True)
class CeilingConfig(TrainConfig):
    """How fast training would be if loading cost nothing, beside how fast it is.

    Takes the flags of fastpets.train, and leaves nothing behind.
    """

    batches: int = 8
    """Batches kept in memory."""
    seconds: float = 15.0
    """How long each of the measurements lasts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("batches", self.batches), ("seconds", self.seconds)):
            if not value > 0:
                raise FastpetsError(f"--{name}: {value}, expected a positive number")


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0 when measured, 1 if it cannot be done (one line says why), 130 after Ctrl-C."""
    return run_command("ceiling", CeilingConfig, ceiling, arguments)


def ceiling(config: CeilingConfig) -> int:
    """Measures loading alone, training on kept batches and training on loaded ones, and prints a line for each."""
    from fastpets.runs.build import make_learner

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; what went wrong, we say
    learner = make_learner(config)
    loader = learner.train
    if loader.cache is not None:
        for _ in track(loader, "filling the cache", len(loader)):
            pass

    def train(batch: Batch) -> None:
        learner.train_step.training_step(*batch)

    learner.train_step.train_mode()
    kept = Replay(loader, config.batches)
    rates = {
        "loading alone": images_per_sec(forever(loader), lambda batch: None, config.seconds, learner.device),
        "training, batches in memory": images_per_sec(forever(kept), train, config.seconds, learner.device),
        "training, batches loaded": images_per_sec(forever(loader), train, config.seconds, learner.device),
    }
    print(f"{'':30}{'images/s':>9}")
    for name, rate in rates.items():
        print(f"{name:30}{rate:9.1f}")
    _, in_memory, loaded = rates.values()
    print(f"training runs at {min(1, loaded / in_memory):.0%} of what it would if loading cost nothing")
    return 0


def forever(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Epoch after epoch of a loader's batches."""
    return chain.from_iterable(repeat(loader))


def images_per_sec(
    batches: Iterator[Batch], use: Callable[[Batch], Any], seconds: float, device: torch.device
) -> float:
    """Images a second that come from `batches` and are used, over at least so many seconds after a warm-up."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(WARM_UP):
        use(next(batches))
    wait()
    num_images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        batch = next(batches)
        use(batch)
        num_images += len(batch.labels)
    wait()
    return num_images / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())

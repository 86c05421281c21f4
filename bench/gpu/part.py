"""What the parts of bench/gpu.sh share: arguments, a file of results, time measurement, a folder of many images."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch

from fastpets.loading.device import resolve_device
from fastpets.utils.atomic import write_atomically


class Part:
    """One part's run. OUT/NAME.json is rewritten whenever figures are added, so that a timeout loses none.

    With the CPU in place of the GPU it is a dry run at a small scale, which tests the script and measures nothing.
    """

    def __init__(self, description: str) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
        parser.add_argument("--seconds", type=float, default=300, help="time limit of the part")
        parser.add_argument("--device", default="cuda", help="cpu for a dry run at a small scale")
        arguments = parser.parse_args()
        self.device = resolve_device(arguments.device)
        self.deadline = psutil.Process().create_time() + arguments.seconds  # imports took some of the time already
        self.out, self.name = arguments.out, Path(sys.argv[0]).stem
        self.dry_run = self.device.type == "cpu"
        self.figures: dict[str, Any] = {"dry_run": self.dry_run}

    def add(self, **figures: Any) -> None:
        """Saves and prints figures."""
        self.figures |= figures
        print(*(f"{name} {value}" for name, value in figures.items()), sep="\n")
        write_atomically(self.out / f"{self.name}.json", lambda file: Path(file).write_text(json.dumps(self.figures)))

    def has_time_for(self, seconds: float) -> bool:
        """Whether `seconds` are left before the time limit."""
        return time.time() + seconds < self.deadline

    def wait(self) -> None:
        """Waits until the GPU is idle."""
        if not self.dry_run:
            torch.cuda.synchronize(self.device)

    def median_ms(self, call: Callable[[], Any], count: int) -> float:
        """Returns the median device time of `count` calls in ms, after three calls of warm-up."""
        times = []
        for _ in range(3):
            call()
        for _ in range(count):
            if self.dry_run:
                started = time.perf_counter()
                call()
                times.append(1000 * (time.perf_counter() - started))
            else:
                before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                before.record()
                call()
                after.record()
                after.synchronize()
                times.append(before.elapsed_time(after))
        return sorted(times)[count // 2]


@contextmanager
def linked_images(count: int) -> Iterator[Path]:
    """A temporary folder of `count` links to the images of FASTPETS_PETS, each under several names of its breed."""
    source = os.environ.get("FASTPETS_PETS")
    images = sorted(Path(source).resolve().glob("*.jpg")) if source else []
    if not images:
        sys.exit(f"FASTPETS_PETS: {source}, expected a folder of real images, as breed_number.jpg")
    with TemporaryDirectory() as folder:
        for number in range(count):
            copy, which = divmod(number, len(images))
            name = images[which].stem + (f"{copy:03}" if copy else "")  # breed_1 becomes breed_1001: the breed stays
            Path(folder, f"{name}.jpg").symlink_to(images[which])
        yield Path(folder)

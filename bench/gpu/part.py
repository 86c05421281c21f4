"""What the parts of bench/gpu.sh share: arguments, results, the scale of the measurements, a folder of many images."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch

from fastpets.loading.device import resolve_device


@dataclass(frozen=True)
class Scale:
    """How much the parts measure. The defaults are for an unknown GPU, if the preflight did not find out.

    Args:
        num_images: names of images in the folder.
        size: height and width of the output.
        batch_size: of loading alone.
        train_batch_size: of training.
        seconds: of one measurement.
    """

    num_images: int = 7390
    size: int = 224
    batch_size: int = 128
    train_batch_size: int = 64
    seconds: float = 3.0

    @classmethod
    def of(cls, memory_gb: float, tflops: float) -> "Scale":
        """For a GPU with this memory and speed of float16 products: batches that fit, and a dozen in a measurement."""
        large = memory_gb >= 20  # an L4 has 22, a T4 15
        fast = tflops >= 100  # a 4090 has 160, a T4 25 to 50
        return cls(
            batch_size=256 if large else 128,
            train_batch_size=128 if large and fast else 64,
            seconds=1.5 if fast else 3.0,
        )


DRY_RUN = Scale(num_images=64, size=64, batch_size=32, train_batch_size=8, seconds=0.2)


class Part:
    """One part's run. Each result is written to OUT when it is known, so that nothing is lost if the part is cut off.

    With the CPU in place of the GPU it is a dry run at a small scale, which tests the script and measures nothing.
    """

    def __init__(self, description: str, name: str | None = None) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--out", type=Path, required=True, help="folder for the results")
        parser.add_argument("--name", required=True, help="of the part's files there")
        parser.add_argument("--seconds", type=float, default=300, help="time limit of the part")
        parser.add_argument("--device", default="cuda", help="cpu for a dry run at a small scale")
        parser.add_argument("file", nargs="?", help="of tests")
        self.arguments = parser.parse_args()
        self.out, self.name = self.arguments.out, self.arguments.name
        self.deadline = psutil.Process().create_time() + self.arguments.seconds  # imports took some of it already
        self.device = resolve_device(self.arguments.device)
        self.dry_run = self.device.type == "cpu"

    def add(self, name: str, found: str, target: str = "", **figures: Any) -> None:
        """Writes a result: as a row of the table in NAME.txt, and with all its figures as a line of NAME.jsonl."""
        row = f"{name:50} {found:>25}  {target}".rstrip()
        print(row)
        for ending, line in {"txt": row, "jsonl": json.dumps({"name": name, "found": found, **figures})}.items():
            with open(self.out / f"{self.name}.{ending}", "a") as file:
                file.write(line + "\n")

    @property
    def seconds_left(self) -> float:
        """Until the time limit."""
        return self.deadline - time.time()

    @property
    def scale(self) -> Scale:
        """As the preflight chose it."""
        if self.dry_run:
            return DRY_RUN
        file = self.out / "scale.json"
        return Scale(**json.loads(file.read_text())) if file.exists() else Scale()

    def choose(self, scale: Scale) -> None:
        """Sets the scale of this part and of those after it."""
        (self.out / "scale.json").write_text(json.dumps(asdict(scale)))

    def wait(self) -> None:
        """Waits until the GPU is idle."""
        if not self.dry_run:
            torch.cuda.synchronize(self.device)


def photos() -> list[Path]:
    """The images of FASTPETS_PETS."""
    source = os.environ.get("FASTPETS_PETS")
    images = sorted(Path(source).resolve().glob("*.jpg")) if source else []
    if not images:
        sys.exit(f"FASTPETS_PETS: {source}, expected a folder of real images, as breed_number.jpg")
    return images


@contextmanager
def linked_images(count: int) -> Iterator[Path]:
    """A temporary folder of `count` links to the images of FASTPETS_PETS, each under several names of its breed."""
    images = photos()
    with TemporaryDirectory() as folder:
        for number in range(count):
            copy, which = divmod(number, len(images))
            name = images[which].stem + (f"{copy:03}" if copy else "")  # breed_1 becomes breed_1001: the breed stays
            Path(folder, f"{name}.jpg").symlink_to(images[which])
        yield Path(folder)

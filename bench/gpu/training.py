"""Times ResNets in mixed precision: on batches in memory, and on batches from a cached and an uncached loader."""

import sys
import time
from itertools import islice
from pathlib import Path

import torch

from bench.gpu.part import Part, linked_images
from fastpets import Learner, Loader
from fastpets.ceiling import forever, images_per_sec
from fastpets.data.sources import from_folder
from fastpets.loading.batch import Batch
from fastpets.models.classifier import create_model
from fastpets.training.options import TrainingOptions
from fastpets.training.train_step import resolve_amp_dtype

# Architecture, torch.compile, cudnn.benchmark; the most important first, as time may run out.
RUNS = [
    *(("resnet50", False, False), ("resnet18", False, False), ("resnet34", False, False), ("resnet50", False, True)),
    *(("resnet50", True, False), ("resnet18", True, False), ("resnet34", True, False)),
]
KEPT = 4  # batches in memory


def main() -> None:
    part = Part(__doc__)
    with linked_images(part.scale.num_images) as folder:
        loaders = {where: make_loader(part, folder, where) for where in ("device", "none")}
        for _ in loaders["device"]:  # fills the cache
            pass
        for arch, compiled, tries in RUNS[1:2] if part.dry_run else RUNS:
            name = f"{arch}{', compiled' * compiled}{', cudnn.benchmark' * tries}"
            if part.seconds_left < 5 * part.scale.seconds + (50 if compiled else 5):
                part.add(name, "no time left")
                continue
            torch.backends.cudnn.benchmark = tries
            measure(part, name, arch, compiled, loaders)


def make_loader(part: Part, folder: Path, where: str) -> Loader:
    dtype = torch.float32 if part.dry_run else resolve_amp_dtype(part.device, "auto")  # a T4 has no bfloat16
    return Loader(
        from_folder(folder),
        augment=True,
        batch_size=part.scale.train_batch_size,
        size=part.scale.size,
        dtype=dtype,
        device=part.device,
        decoder="dali",
        cache=where,
    )


def measure(part: Part, name: str, arch: str, compiled: bool, loaders: dict[str, Loader]) -> None:
    """Adds the rates of training by source of the batches, and the seconds of the first step."""
    cached, uncached = loaders["device"], loaders["none"]
    model = create_model(arch, len(cached.classes), "none")
    learner = Learner(cached, cached, model, TrainingOptions(amp=True, compile=compiled))
    learner.train_step.train_mode()
    started = time.perf_counter()
    kept = list(islice(cached, KEPT))
    learner.train_step.step(*kept[0])
    part.wait()
    first_step_s = time.perf_counter() - started

    def train(batch: Batch) -> None:
        learner.train_step.step(*batch)

    def rate(source: object) -> float:
        return images_per_sec(forever(source), train, part.scale.seconds, learner.device)

    in_memory = rate(kept)
    row = f"{name}, batches of {cached.batch_size} in memory"
    part.add(row, f"{in_memory:,.0f} images/s", rate=in_memory, first_step_s=first_step_s)
    for where, source, target in (("cached", cached, "97%"), ("uncached", uncached, "90%")):
        found = rate(source)
        part.add(f"  {where}", f"{found / in_memory:.0%}", target, rate=found)


if __name__ == "__main__":
    sys.exit(main())

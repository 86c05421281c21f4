"""Times ResNets in mixed precision: on batches in memory, and on batches from a cached and an uncached loader."""

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

# Architecture, torch.compile, cudnn.benchmark; the most important first, as time may run out.
RUNS = [
    *(("resnet50", False, False), ("resnet18", False, False), ("resnet34", False, False), ("resnet50", False, True)),
    *(("resnet50", True, False), ("resnet18", True, False), ("resnet34", True, False)),
]
KEPT = 4  # batches in memory


def main() -> None:
    part = Part(__doc__)
    count, batch_size, size, seconds = (64, 8, 64, 0.2) if part.dry_run else (7390, 128, 224, 2.0)
    with linked_images(count) as folder:
        loaders = {where: make_loader(part, folder, batch_size, size, where) for where in ("device", "none")}
        for _ in loaders["device"]:  # fills the cache
            pass
        for arch, compiled, tries in RUNS[1:2] if part.dry_run else RUNS:
            name = f"{arch}{', compiled' * compiled}{', cudnn.benchmark' * tries}"
            if not part.has_time_for(60 if compiled else 15):
                part.add(**{name: "no time left"})
                continue
            torch.backends.cudnn.benchmark = tries
            part.add(**{name: rates(arch, compiled, loaders, seconds)})


def make_loader(part: Part, folder: Path, batch_size: int, size: int, where: str) -> Loader:
    dtype = torch.float32 if part.dry_run else torch.bfloat16
    return Loader(
        from_folder(folder),
        augment=True,
        batch_size=batch_size,
        size=size,
        dtype=dtype,
        device=part.device,
        decoder="dali",
        cache=where,
    )


def rates(arch: str, compiled: bool, loaders: dict[str, Loader], seconds: float) -> dict[str, float]:
    """Returns images per second of training by source of the batches, and the seconds of the first step."""
    cached, uncached = loaders["device"], loaders["none"]
    model = create_model(arch, len(cached.classes), "none")
    learner = Learner(cached, cached, model, TrainingOptions(amp=True, amp_dtype="bfloat16", compile=compiled))
    learner.train_step.train_mode()
    started = time.perf_counter()
    kept = list(islice(cached, KEPT))
    learner.train_step.step(*kept[0])
    found = {"first_step_s": time.perf_counter() - started}

    def train(batch: Batch) -> None:
        learner.train_step.step(*batch)

    for name, source in {"in memory": kept, "cached": cached, "uncached": uncached}.items():
        found[name] = images_per_sec(forever(source), train, seconds, learner.device)
    return found


if __name__ == "__main__":
    main()

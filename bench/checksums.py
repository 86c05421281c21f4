"""Checksums of loaders' batches and of trained weights, to compare two versions of the code.

    python -m bench.checksums > before.json          # in one checkout
    python -m bench.checksums --expect before.json   # in another, on the same machine

A refactoring must not change them. Needs FASTPETS_PETS and FASTPETS_WEIGHTS. Takes about a minute on two cores.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DistributedSampler

import fastpets

NUM_IMAGES = 148  # four of each breed
EPOCHS = 3
# Loader arguments by name; the name says what differs from the first.
LOADERS: dict[str, dict[str, Any]] = {
    "validation": {},
    "training": {"augment": True},
    "trivial-geometric, 96 x 160": {"augment": "trivial-geometric", "size": (96, 160)},
    "pad with zeros": {"augment": True, "presize_method": "pad", "borders": "zeros"},
    "squish, border, supersample": {"presize_method": "squish", "borders": "border", "supersample": 2, "size": 96},
    "float16, NHWC": {"augment": True, "dtype": torch.float16, "layout": "NHWC"},
    "bfloat16, another normalisation": {"dtype": torch.bfloat16, "mean": (0.5,) * 3, "std": (0.4, 0.5, 0.6)},
    "uint8": {"augment": True, "output": "uint8"},
    "balanced": {"augment": True, "sampler": "balanced", "batch_size": 13, "seed": 2**40 + 7},
    "one of three ranks": {"augment": True, "rank": 1, "world_size": 3, "batch_size": 11},
    "one of three ranks, validation": {"rank": 2, "world_size": 3, "batch_size": 11},
    "cached": {"augment": True, "cache": "host", "size": 128},
    "shrunk": {"augment": True, "presize": 100, "size": 48},
    "skips bad files": {"augment": True, "on_bad_file": "skip", "shuffle": False, "drop_last": False},
    "replaces bad files": {"augment": True, "on_bad_file": "replace"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", type=Path, help="the output of an earlier run")
    expect = parser.parse_args().expect
    warnings.simplefilter("ignore")  # about the bad files, which are intended
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        images = Path(folder, "images")
        found = dict(checksums(copied_images(images), with_bad_files(images, Path(folder, "bad"))))
    if expect is None:
        print(json.dumps(found, indent=1))
        return 0
    expected = json.loads(expect.read_text())
    different = [name for name in expected | found if expected.get(name) != found.get(name)]
    print(f"{len(found)} checksums, different: {', '.join(different) or 'none'}")
    return 1 if different else 0


def checksums(good: Path, bad: Path) -> Iterator[tuple[str, str]]:
    """Yields a name and a checksum for each loader, and for the weights of a short training run."""
    for name, settings in LOADERS.items():
        loader = fastpets.Loader(bad if "bad files" in name else good, **{"device": "cpu", **settings})
        yield name, checksum(loader)
    loader = fastpets.Loader(good, device="cpu", augment=True, size=160)
    for size in ((64, 64), (96, 128)):
        loader.resize(size)
        yield f"resized to {size}", checksum(loader, epochs=1)
    sampler = DistributedSampler(range(NUM_IMAGES), num_replicas=2, rank=1, shuffle=True)
    yield "a DistributedSampler", checksum(fastpets.Loader(good, device="cpu", augment=True, sampler=sampler))
    train, _ = loaders = fastpets.loaders(good, size=64, batch_size=32, device="cpu")
    yield "split", hashlib.sha256("\n".join(Path(path).name for path in train.dataset.paths).encode()).hexdigest()
    yield "weights", trained(*loaders)


def checksum(loader: fastpets.Loader, epochs: int = EPOCHS) -> str:
    """Returns the SHA-256 of the images, labels and ids of `epochs` epochs."""
    digest = hashlib.sha256()
    for _ in range(epochs):
        for batch in loader:
            for array in (batch.images.contiguous().view(torch.uint8), batch.labels):
                digest.update(array.numpy().tobytes())
            digest.update(batch.ids.tobytes())
    return digest.hexdigest()


def trained(train: fastpets.Loader, valid: fastpets.Loader) -> str:
    """Returns the SHA-256 of a model's weights after two training phases on two threads."""
    torch.set_num_threads(2)
    model = fastpets.create_model("timm/efficientnet_lite0", len(train.classes), os.environ["FASTPETS_WEIGHTS"])
    learner = fastpets.Learner(train, valid, model, print_epochs=False)
    learner.fine_tune(2, freeze_epochs=1)
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def copied_images(folder: Path) -> Path:
    """Copies some of the real images to `folder`, so that checksums do not depend on the original paths."""
    folder.mkdir()
    by_breed: dict[str, list[Path]] = {}
    for path in sorted(Path(os.environ["FASTPETS_PETS"]).glob("*.jpg")):
        by_breed.setdefault(path.stem.rpartition("_")[0], []).append(path)
    for paths in by_breed.values():
        for path in paths[: NUM_IMAGES // len(by_breed)]:
            shutil.copy(path, folder)
    return folder


def with_bad_files(images: Path, folder: Path) -> Path:
    """Copies the images to `folder`, with some of them truncated, empty or replaced by text."""
    shutil.copytree(images, folder)
    paths = sorted(folder.iterdir())
    for path in paths[::17]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    paths[5].write_bytes(b"")
    paths[40].write_text("no image")
    return folder


if __name__ == "__main__":
    sys.exit(main())

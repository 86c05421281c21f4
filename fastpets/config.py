"""Every setting of the package: what a training picture may undergo, and what a training run is."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from fastpets.errors import FastpetsError

OnBadFile = Literal["raise", "skip"]
LabelFrom = Literal["name", "folder"]

# The chapter's pattern, for whichever of the known image suffixes the file has.
LABEL_PATTERN = r"(.+)_\d+\.\w+$"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What a training picture may undergo, each sample by draws of its own; the defaults are fastai's.

    `rotate_deg`, `warp` and `lighting` are the largest amounts either way and `mult` scales them; `zoom` is the
    largest factor (at least 1) and `min_scale` the smallest share of the presized square's area that a crop keeps.
    """

    flip_p: float = 0.5
    rotate_deg: float = 10.0
    zoom: float = 1.1
    warp: float = 0.2
    affine_p: float = 0.75
    lighting: float = 0.2
    lighting_p: float = 0.75
    min_scale: float = 0.75
    mult: float = 1.0

    def __post_init__(self) -> None:
        for name in ("flip_p", "affine_p", "lighting_p"):
            _check(f"Augment.{name}", getattr(self, name), 0, 1)
        _check("Augment.zoom", self.zoom, 1, 10)
        _check("Augment.min_scale", self.min_scale, 0.01, 1)
        _check("Augment.mult", self.mult, 0, 10)
        _check("Augment.rotate_deg * mult", self.rotate_deg * self.mult, 0, 180)
        _check("Augment.warp * mult", self.warp * self.mult, 0, 0.45)  # at 0.5 a corner may reach infinity
        _check("Augment.lighting * mult", self.lighting * self.mult, 0, 0.99)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a picture classifier: the head first, then the whole network, as fastai's fine_tune does.

    With no --data this is the 37 breeds of Oxford-IIIT Pet, downloaded once into the user's cache folder.
    """

    data: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder of pictures, or `sample` for a small drawn set that needs no network. Default: Oxford-IIIT Pet."""
    label_from: LabelFrom = "name"
    """Where a label stands: in the file's name, or in the name of the folder that holds it."""
    label_pattern: str = LABEL_PATTERN
    """Regular expression on the file name; its first group is the label."""
    labels: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """CSV with the columns file, label and, if wanted, split (train, valid, test); instead of the two above."""
    split_seed: int = 42
    """Which random fifth validates, where neither folders (train, valid) nor the CSV say it."""
    on_bad_file: OnBadFile = "raise"
    """Stop before training if a picture cannot be used, or go on without it."""

    arch: str = "resnet34"
    """Any torchvision classification model, or timm/NAME."""
    weights: str = "default"
    """Pretrained weights: `default` (the library's best ImageNet ones), `none`, or a safetensors or pth file."""
    size: int = 224
    """Side in pixels of the square that the model sees."""
    presize: int = 460
    """Side of the square from which crops and warps are drawn; larger pictures are shrunk towards it first."""

    epochs: int = 6
    """Epochs with all layers training."""
    freeze_epochs: int = 3
    """Epochs before that, with only the head and the norm layers training (pretrained weights only)."""
    lr: float = 2e-3
    """Highest learning rate of the frozen phase; the unfrozen one takes a half, and less in earlier layers."""
    batch_size: int = 64
    """Pictures in a training step."""
    amp: bool = False
    """Automatic mixed precision."""
    amp_dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    """Precision under --amp; auto is bfloat16 where the hardware has it."""
    seed: int = 0
    """Seed of the weights, the order and the augmentation."""

    threads: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read, decode and (on a CPU) train. Default: the processors that this process may use."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for what the run leaves. Default: runs/DATE_TIME_ARCH."""

    def __post_init__(self) -> None:
        for name, low, high in (("size", 8, 4096), ("presize", 8, 8192), ("batch_size", 1, 65536)):
            _check(f"--{name.replace('_', '-')}", getattr(self, name), low, high)
        _check("--epochs", self.epochs, 0, 100_000)
        _check("--freeze-epochs", self.freeze_epochs, 0, 100_000)
        _check("--lr", self.lr, 1e-12, 1e3)
        _check("--seed", self.seed, 0, 2**63 - 1)
        _check("--split-seed", self.split_seed, 0, 2**63 - 1)
        if self.threads is not None:
            _check("--threads", self.threads, 1, 1024)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise FastpetsError(f"--device: {self.device!r}, expected auto, cpu, cuda or cuda:N")


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also catches NaN
        raise FastpetsError(f"{name}: {value}, expected a value from {low} to {high}")

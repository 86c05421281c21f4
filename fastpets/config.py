"""Every setting of the package: what a training picture may undergo, and what a training run is."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from fastpets.errors import FastpetsError

OnBadFile = Literal["raise", "skip", "replace"]
LabelFrom = Literal["name", "folder", "none"]
PresizeMethod = Literal["crop", "squish", "pad"]
Borders = Literal["reflect", "border", "zeros"]
Output = Literal["float", "uint8"]
Layout = Literal["NCHW", "NHWC"]
CacheWhere = Literal["none", "host", "device", "auto"]

# The chapter's pattern, for whichever of the known image suffixes the file has.
LABEL_PATTERN = r"(.+)_\d+\.\w+$"

MAX_PIXELS = 178_956_970  # of a picture, beyond which Pillow sees a decompression bomb: half a gigabyte of pixels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also catches NaN
        raise FastpetsError(f"{name}: {value}, expected a value from {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What a training picture may undergo, each sample by draws of its own; the defaults are fastai's.

    Each change happens with probability `affine_p` (geometry) or `lighting_p` (values); with `one_of`, exactly one of
    those whose amount is not zero happens, or none, all equally likely. `flip_p`, `invert_p` and the crop are apart.
    Amounts are the largest ones; `mult` scales all but zoom, solarize and posterize.

    Args:
        rotate_deg: degrees either way.
        zoom: factor, at least 1, about a random point.
        warp: perspective, as the share of half a side by which a corner moves either way.
        shear_deg: degrees by which upright or level lines lean either way.
        translate: share of a side by which the picture moves either way.
        min_scale: smallest share of the canvas's area that the random crop keeps.
        brightness, contrast: as fastai's max_lighting.
        gamma: the exponent is 1 + gamma at most, 1 / (1 + gamma) at least.
        solarize: values from 1 - solarize on, at most, become their negatives.
        posterize: bits dropped.
    """

    flip_p: float = 0.5
    rotate_deg: float = 10.0
    zoom: float = 1.1
    warp: float = 0.2
    shear_deg: float = 0.0
    translate: float = 0.0
    affine_p: float = 0.75
    min_scale: float = 0.75
    brightness: float = 0.2
    contrast: float = 0.2
    gamma: float = 0.0
    solarize: float = 0.0
    posterize: int = 0
    invert_p: float = 0.0
    lighting_p: float = 0.75
    mult: float = 1.0
    one_of: bool = False

    def __post_init__(self) -> None:
        for name in ("flip_p", "affine_p", "lighting_p", "invert_p", "solarize"):
            _check(f"Augment.{name}", getattr(self, name), 0, 1)
        for name, low, most in (("zoom", 1, 10), ("min_scale", 0.01, 1), ("posterize", 0, 7), ("mult", 0, 10)):
            _check(f"Augment.{name}", getattr(self, name), low, most)
        # Beyond 0.35 the warp alone may put a corner of the canvas behind the perspective's horizon.
        scaled = {"rotate_deg": 180.0, "warp": 0.35, "shear_deg": 80.0, "translate": 1.0, "gamma": 10.0}
        for name, high in {**scaled, "brightness": 0.999, "contrast": 0.999}.items():
            _check(f"Augment.{name} * mult", getattr(self, name) * self.mult, 0, high)

    @property
    def changes(self) -> tuple[str, ...]:
        """The changes whose amounts are not zero."""
        sided = {"warp": self.warp, "shear": self.shear_deg, "translate": self.translate}
        single = {"rotate": self.rotate_deg, "zoom": self.zoom - 1, "brightness": self.brightness,
                  "contrast": self.contrast, "gamma": self.gamma, "solarize": self.solarize,
                  "posterize": self.posterize}  # fmt: skip
        names = [f"{name}_{axis}" for name, amount in sided.items() if amount for axis in "xy"]
        return (*(name for name, amount in single.items() if amount), *names)


# `trivial-geometric` picks one change a picture, at any strength, as TrivialAugment does (Müller and Hutter, ICCV
# 2021, from whose wide space the ranges are), but from those alone that are a matrix or a table.
POLICIES = {
    "none": None,
    "fastai": Augment(),
    "trivial-geometric": Augment(
        one_of=True, rotate_deg=135, shear_deg=44.7, translate=0.14, zoom=1, warp=0, brightness=0.99, contrast=0,
        solarize=1, posterize=6,
    ),
}  # fmt: skip
Policy = Literal["none", "fastai", "trivial-geometric"]


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from "224" or "224x320". Raises ValueError."""
    sides = [int(side) for side in text.lower().split("x")]
    if len(sides) not in (1, 2):
        raise ValueError(f"{text!r}: expected a number of pixels, or HEIGHTxWIDTH")
    return sides[0], sides[-1]


Size = Annotated[
    tuple[int, int],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PIXELS|HxW",
        instance_from_str=lambda texts: parse_size(texts[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda size: [str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"],
    ),
]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a picture classifier: the head first, then the whole network, as fastai's fine_tune does.

    With no --data this is the 37 breeds of Oxford-IIIT Pet, downloaded once into the user's cache folder.
    """

    data: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder of pictures (s3:// too), tar shards, a CSV, or `sample`, a small drawn set. Default: Oxford-IIIT Pet."""
    label_from: LabelFrom = "name"
    """Where a label stands: in the file's name, or in the name of the folder that holds it."""
    label_pattern: str = LABEL_PATTERN
    """Regular expression on the file name; its first group is the label."""
    labels: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """CSV with the columns file, label and, if wanted, split (train, valid, test); instead of the two above."""
    split_seed: int = 42
    """Which random fifth validates, where neither folders (train, valid) nor the CSV say it."""
    on_bad_file: OnBadFile = "raise"
    """Stop if a picture cannot be used, go on without it, or with another in its place."""
    max_pixels: int = MAX_PIXELS
    """Pixels that a picture may have; a larger one cannot be used."""
    balanced: bool = False
    """Draw training pictures so that every class comes equally often, however rare."""

    arch: str = "resnet34"
    """Any torchvision classification model, or timm/NAME."""
    weights: str = "default"
    """Pretrained weights: `default` (the library's best ImageNet ones), `none`, or a safetensors or pth file."""
    size: Size = (224, 224)
    """What the model sees, in pixels: the side of a square, or HEIGHTxWIDTH."""
    augment: Policy = "fastai"
    """What training pictures undergo: `fastai`, the chapter's changes; `trivial-geometric`, one of many; or `none`."""
    presize: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Shrink pictures whose shorter side is larger to this when they are decoded. Default: 4 times --size."""
    presize_method: PresizeMethod = "crop"
    """What is kept of a picture in other proportions: the largest part that fits, or all of it, squished or padded."""
    borders: Borders = "reflect"
    """What is beyond a picture's edges: its reflection, the colour of its border, or black."""
    supersample: int = 1
    """How finely pictures are sampled: 2 takes four samples where 1 takes one, truer and slower."""
    cache: CacheWhere = "none"
    """Keep decoded pictures after the first epoch: in the host's or the device's memory, or where there is room."""

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
        for side in self.size:
            _check("--size", side, 8, 4096)
        _check("--max-pixels", self.max_pixels, 1, 2**31)
        _check("--batch-size", self.batch_size, 1, 65536)
        _check("--supersample", self.supersample, 1, 4)
        if self.presize is not None:
            _check("--presize", self.presize, 8, 8192)
        _check("--epochs", self.epochs, 0, 100_000)
        _check("--freeze-epochs", self.freeze_epochs, 0, 100_000)
        _check("--lr", self.lr, 1e-12, 1e3)
        _check("--seed", self.seed, 0, 2**63 - 1)
        _check("--split-seed", self.split_seed, 0, 2**63 - 1)
        if self.threads is not None:
            _check("--threads", self.threads, 1, 1024)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise FastpetsError(f"--device: {self.device!r}, expected auto, cpu, cuda or cuda:N")

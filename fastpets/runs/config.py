"""The settings of a training run: the flags of `fastpets train`. Does not import torch, so that help is fast."""

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from fastpets.augment.policy import PolicyName
from fastpets.augment.preprocessing import MAX_PIXELS, Preprocessing
from fastpets.data.sources import LABEL_PATTERN
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.training.options import AmpDtype, MetricName, TrainingOptions
from fastpets.training.phases import Phase, fine_tune_phases, parse_rate, parse_schedule
from fastpets.utils.validation import (
    Borders,
    CacheWhere,
    FrozenNorms,
    LabelFrom,
    Mix,
    OnBadFile,
    PresizeMethod,
    check_range,
)

# The lowest and the highest value of the settings that neither Preprocessing nor TrainingOptions checks.
LIMITS = {
    "split_seed": (0, 2**63 - 1),
    "epochs": (0, 100_000),
    "freeze_epochs": (0, 100_000),
    "batch_size": (1, 65536),
    "tta": (0, 1000),
    "num_workers": (0, 1024),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train an image classifier: the head first, then the whole network, as fastai's fine_tune does.

    Without `data`, the data set is Oxford-IIIT Pet, 37 breeds, downloaded once into the user's cache folder.
    """

    data: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder of images (s3:// too), tar shards, a CSV, or `sample`, a small drawn set. Default: Oxford-IIIT Pet."""
    label_from: LabelFrom = "auto"
    """Where the labels are. `auto`: in folder names if there are two class folders or more, else in file names."""
    label_pattern: str = LABEL_PATTERN
    """Regular expression that is searched in each file name; its first group is the label."""
    labels: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """CSV with the columns file, label and optionally split (train, valid, test). Replaces the two flags above."""
    split_seed: int = 42
    """Seed of the random 80/20 split. Not used if folders named train and valid, or the CSV, define the split."""
    on_bad_file: OnBadFile = "raise"
    """What to do about an image that cannot be used: stop, leave it out, or use another image in its place."""
    max_pixels: int = MAX_PIXELS
    """Largest image that is accepted, in pixels."""
    sampler: Literal["balanced"] | None = None
    """`balanced` samples training images with replacement, every class equally often."""

    arch: str = "resnet34"
    """Any torchvision classification model, or timm/NAME."""
    weights: str = "default"
    """Pretrained weights: `default` (the library's best for ImageNet), `none`, or a safetensors or pth file."""
    size: Annotated[str, arg(metavar="PIXELS|HxW")] = "224"
    """Size of the model's input, in pixels: the side of a square, or HEIGHTxWIDTH."""
    initial_size: Annotated[str | None, arg(metavar="PIXELS|HxW")] = None
    """Size of training images in the first epoch. They grow from epoch to epoch, to `size` in the last one."""
    augment: PolicyName = "fastai"
    """Augmentation of training images: `fastai`; `trivial-geometric`, one random transform per image; or `none`."""
    presize: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Shorter side to which larger images are shrunk once decoded. Default: 4 times the output's."""
    presize_method: PresizeMethod = "crop"
    """How an image of another aspect ratio is fitted: crop it, distort it (squish), or pad it."""
    borders: Borders = "reflect"
    """Pixels outside the image: its reflection, its border pixels repeated, or black."""
    supersample: int = 1
    """Samples per output pixel and axis, 1 to 4. 2 is less aliased than 1, and slower."""
    cache: CacheWhere = "none"
    """Memory in which decoded images are kept after the first epoch. `auto` is where they fit, the device's first."""

    epochs: int = 6
    """Epochs in which all layers are trained."""
    freeze_epochs: int = 3
    """Epochs before these, in which only the head and norm layers are trained. Used with pretrained weights only."""
    lr: Annotated[str, arg(metavar="RATE|FROM:TO|auto")] = "2e-3"
    """Highest learning rate of the frozen phase; the unfrozen phase uses half of it, and less in earlier layers.
    With FROM:TO, the unfrozen phase uses FROM in the first layers and TO in the last ones.
    `auto` is the learning rate finder's suggestion."""
    schedule: Annotated[str | None, arg(metavar='"PHASE EPOCHS RATE, ..."')] = None
    """Phases of one cycle each, such as "frozen 3 3e-3, unfrozen 12 1e-6:1e-4". Replaces the three flags above."""
    batch_size: int = 64
    """Images per batch, in each process."""
    accumulate: int = 1
    """Batches whose gradients make one optimizer step."""
    amp: bool = False
    """Train in automatic mixed precision."""
    amp_dtype: AmpDtype = "auto"
    """Precision of `amp`. `auto` is bfloat16 where the hardware has it."""
    compile: bool = False
    """Compile the model with torch.compile."""
    seed: int = 0
    """Seed of the new layers' weights, the order of the images, and augmentation."""

    weight_decay: float = 0.01
    """Decoupled weight decay; none on norm layers and biases."""
    bn: FrozenNorms = "train"
    """Norm layers of frozen layer groups: keep training them, as fastai does, or freeze them too (eval)."""
    label_smoothing: float = 0.0
    """Label smoothing of the training loss."""
    class_weights: bool = False
    """Weight the training loss by inverse class frequency."""
    mix: Mix = "none"
    """Mix the images and labels of each training batch by mixup, CutMix, or one of both at random."""
    ema: Annotated[float | None, arg(metavar="DECAY")] = None
    """Decay per step of an exponential moving average of the weights, which is validated and saved; such as 0.99."""
    clip_norm: Annotated[float | None, arg(metavar="NORM")] = None
    """Largest total norm of the gradients; larger ones are scaled down to it."""

    metrics: tuple[MetricName, ...] = ()
    """Validation metrics besides the error rate; `recall` is computed for each class."""
    tta: Annotated[int, arg(metavar="N")] = 0
    """Augmented versions of each image for test-time augmentation after training; 0 for none."""
    tensorboard: bool = False
    """Also log losses, learning rates and metrics for TensorBoard."""
    num_workers: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read and decode images and, on a CPU, train. Default: the processors that this process may use."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Run folder; new or empty. Default: runs/DATE_TIME_ARCH."""
    resume: Annotated[Path | None, arg(metavar="RUN|CHECKPOINT")] = None
    """Resume an interrupted run with its own settings, from its latest checkpoint or the one given."""

    def __post_init__(self) -> None:
        self.preprocessing()
        self.options()
        self.phases(pretrained=True)
        for name, limits in LIMITS.items():
            if (value := getattr(self, name)) is not None:
                check_range(name, value, *limits)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise InvalidArgumentError(f"device: {self.device!r}, expected auto, cpu, cuda or cuda:N")

    def preprocessing(self, **others: Any) -> Preprocessing:
        """What the model sees. `others` are fields that follow from the model: mean, std and dtype."""
        return Preprocessing(
            size=parse_size("size", self.size),
            presize=self.presize,
            presize_method=self.presize_method,
            borders=self.borders,
            supersample=self.supersample,
            max_pixels=self.max_pixels,
            **others,
        )

    def options(self) -> TrainingOptions:
        """The learner's options: the settings of the same names."""
        values = {field.name: getattr(self, field.name) for field in fields(TrainingOptions)}
        if self.initial_size is not None:
            values["initial_size"] = parse_size("initial_size", self.initial_size)
        return TrainingOptions(**values)

    def phases(self, pretrained: bool) -> list[Phase]:
        """The phases of training; without pretrained weights, and for a rate that is still "auto", a single one."""
        if self.schedule is not None:
            return parse_schedule(self.schedule)
        lr = parse_rate(self.lr)
        if pretrained and lr != "auto":
            return fine_tune_phases(self.epochs, lr, self.freeze_epochs)
        return [Phase(name="one cycle", epochs=self.epochs, lr=lr)]


def parse_size(name: str, text: str) -> tuple[int, int]:
    """(height, width) from "224" or "224x320", the value of the parameter `name`. Raises InvalidArgumentError."""
    if not re.fullmatch(r"\d+(x\d+)?", text.lower()):
        raise InvalidArgumentError(f"{name}: {text!r}, expected a number of pixels, or HEIGHTxWIDTH")
    sides = [int(side) for side in text.lower().split("x")]
    return sides[0], sides[-1]


def read_config(run: Path, **changes: Any) -> TrainConfig:
    """The settings in a run folder's config.json, with `changes`. Raises FastpetsError if there are none."""
    file = run / "config.json"
    try:
        values = {**json.loads(file.read_text())["settings"], **changes}
        for name in ("labels", "out", "resume"):
            values[name] = None if values[name] is None else Path(values[name])
        return TrainConfig(**values | {"metrics": tuple(values["metrics"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FastpetsError(f"{file}: {error}, expected the settings of a run") from None

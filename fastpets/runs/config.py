"""Every setting of a training run: the flags of `python -m fastpets.train`."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from fastpets.augment.policy import Policy
from fastpets.augment.preprocessing import MAX_PIXELS
from fastpets.data.sources import LABEL_PATTERN
from fastpets.errors import FastpetsError
from fastpets.training.options import LIMITS, AmpDtype, MetricName
from fastpets.training.phases import parse_rate, parse_schedule
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


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train an image classifier: the head first, then the whole network, as fastai's fine_tune does.

    With no --data this is the 37 breeds of Oxford-IIIT Pet, downloaded once into the user's cache folder.
    """

    data: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder of images (s3:// too), tar shards, a CSV, or `sample`, a small drawn set. Default: Oxford-IIIT Pet."""
    label_from: LabelFrom = "auto"
    """Where the labels are: in the file names, in the names of the folders that hold the images, or nowhere. `auto`
    takes class folders if there are at least two, else file names."""
    label_pattern: str = LABEL_PATTERN
    """Regular expression on the file name; its first group is the label."""
    labels: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """CSV with the columns file, label and, if wanted, split (train, valid, test); instead of the two above."""
    split_seed: int = 42
    """Which random fifth validates, where neither folders (train, valid) nor the CSV say it."""
    on_bad_file: OnBadFile = "raise"
    """Stop if an image cannot be used, go on without it, or with another in its place."""
    max_pixels: int = MAX_PIXELS
    """Pixels that an image may have; a larger one cannot be used."""
    balanced: bool = False
    """Draw training images so that every class comes equally often, however rare."""

    arch: str = "resnet34"
    """Any torchvision classification model, or timm/NAME."""
    weights: str = "default"
    """Pretrained weights: `default` (the library's best ImageNet ones), `none`, or a safetensors or pth file."""
    size: Annotated[str, arg(metavar="PIXELS|HxW")] = "224"
    """Size of the images that the model sees, in pixels: a square's side, or HEIGHTxWIDTH."""
    initial_size: Annotated[str | None, arg(metavar="PIXELS|HxW")] = None
    """Size of training images in the first epoch, from which they grow to --size in the last. Default: --size."""
    augment: Policy = "fastai"
    """What training images undergo: `fastai`, the chapter's changes; `trivial-geometric`, one of many; or `none`."""
    presize: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Shrink images whose shorter side is larger to this when they are decoded. Default: 4 times --size."""
    presize_method: PresizeMethod = "crop"
    """What is kept of an image in other proportions: the largest part that fits, or all of it, squished or padded."""
    borders: Borders = "reflect"
    """What is beyond an image's edges: its reflection, the colour of its border, or black."""
    supersample: int = 1
    """How finely images are sampled: 2 takes four samples where 1 takes one, truer and slower."""
    cache: CacheWhere = "none"
    """Keep decoded images after the first epoch: in the host's or the device's memory, or where there is room."""

    epochs: int = 6
    """Epochs with all layers training."""
    freeze_epochs: int = 3
    """Epochs before that, with only the head and the norm layers training (pretrained weights only)."""
    lr: Annotated[str, arg(metavar="RATE|FROM:TO|auto")] = "2e-3"
    """Highest learning rate of the frozen phase; the unfrozen one takes a half, and less in earlier layers. A range is
    the unfrozen phase's own, from the first layers to the last. `auto` asks the rate finder."""
    schedule: Annotated[str | None, arg(metavar='"PHASE EPOCHS RATE, ..."')] = None
    """Phases in place of the three above, such as "frozen 3 3e-3, unfrozen 12 1e-6:1e-4", each one cycle."""
    batch_size: int = 64
    """Images in a training step, of each process."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
    amp: bool = False
    """Automatic mixed precision."""
    amp_dtype: AmpDtype = "auto"
    """Precision under --amp; auto is bfloat16 where the hardware has it."""
    compile: bool = False
    """Compile the model with torch.compile."""
    seed: int = 0
    """Seed of the weights, the order and the augmentation."""

    weight_decay: float = 0.01
    """Decoupled weight decay; none on norm layers and biases."""
    bn: FrozenNorms = "train"
    """Whether batch norms and other norms train on in frozen layers, as fastai's do, or stay as they are."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes, in training."""
    class_weights: bool = False
    """Weigh the loss by the inverse of how often a class comes in training."""
    mix: Mix = "none"
    """Mix the images and labels of each training batch: mixup, cutmix, or one of both at random."""
    ema: Annotated[float | None, arg(metavar="DECAY")] = None
    """Validate and keep a moving average of the weights, such as 0.99 of it and 0.01 of the new ones each step."""
    clip_norm: Annotated[float | None, arg(metavar="NORM")] = None
    """Largest norm of all gradients together."""

    metrics: tuple[MetricName, ...] = ()
    """Metrics to show beside the error rate; `recall` is of every class."""
    tta: Annotated[int, arg(metavar="N")] = 0
    """After training, also predict by N augmented versions of each image, and say how well."""
    tensorboard: bool = False
    """Write losses, rates and metrics for TensorBoard as well."""
    threads: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read, decode and (on a CPU) train. Default: the processors that this process may use."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for what the run leaves. Default: runs/DATE_TIME_ARCH."""
    resume: Annotated[Path | None, arg(metavar="RUN|CHECKPOINT")] = None
    """Go on with a run that was interrupted, by its settings, from its latest checkpoint or the one given."""

    def __post_init__(self) -> None:
        for side in set(self.final_size):
            check_range("--size", side, *LIMITS["initial_size"])
        if self.initial_size is not None:
            for side in set(parse_size(self.initial_size, "initial-size")):
                check_range("--initial-size", side, *LIMITS["initial_size"])
        for name, low, high in RANGES:
            if (value := getattr(self, name)) is not None:
                check_range(f"--{name.replace('_', '-')}", value, low, high)
        parse_rate(self.lr)
        if self.schedule is not None:
            parse_schedule(self.schedule)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise FastpetsError(f"--device: {self.device!r}, expected auto, cpu, cuda or cuda:N")

    @property
    def final_size(self) -> tuple[int, int]:
        """(height, width) of the images that the model sees, but for those of `initial_size`."""
        return parse_size(self.size)


RANGES = (
    *((name, *limits) for name, limits in LIMITS.items() if name != "initial_size"),
    *(("max_pixels", 1, 2**31), ("batch_size", 1, 65536), ("supersample", 1, 4), ("tta", 0, 1000)),
    *(("presize", 8, 8192), ("epochs", 0, 100_000), ("freeze_epochs", 0, 100_000), ("threads", 1, 1024)),
    ("split_seed", 0, 2**63 - 1),
)


def read_config(run: Path, **changes: Any) -> TrainConfig:
    """The settings of a run, with changes. Raises FastpetsError if its folder has none."""
    try:
        return from_json((run / "config.json").read_text(), **changes)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FastpetsError(f"{run / 'config.json'}: {error}, expected the settings of the run") from None


def from_json(text: str, **changes: Any) -> TrainConfig:
    """A run's settings from its config.json, with changes. Raises ValueError, TypeError or FastpetsError."""
    values = {**json.loads(text)["settings"], **changes}
    for name in ("labels", "out", "resume"):
        values[name] = None if values[name] is None else Path(values[name])
    return TrainConfig(**values | {"metrics": tuple(values["metrics"])})


def parse_size(text: str, flag: str = "size") -> tuple[int, int]:
    """(height, width) from "224" or "224x320". Raises FastpetsError."""
    if not re.fullmatch(r"\d+(x\d+)?", text.lower()):
        raise FastpetsError(f"--{flag}: {text!r}, expected a number of pixels, or HEIGHTxWIDTH")
    sides = [int(side) for side in text.lower().split("x")]
    return sides[0], sides[-1]

"""The settings of a training run: the flags of `fastpets train`. Does not import torch, so that help is fast."""

import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from fastpets.augment.policy import PolicyName
from fastpets.augment.preprocessing import LIMITS, MAX_PIXELS, Preprocessing
from fastpets.data.sources import LABEL_PATTERN
from fastpets.data.storage import is_remote
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.runs.files import CONFIG, read_about
from fastpets.runs.recipes import RECIPES
from fastpets.training.options import AmpDtype, MetricName, TrainingOptions
from fastpets.training.phases import Phase, fine_tune_phases, parse_rate, parse_schedule
from fastpets.utils.validation import (
    MAX_BATCH_SIZE,
    MAX_CACHE_GB,
    MAX_EPOCHS,
    MAX_SEED,
    MAX_TTA,
    MAX_WORKERS,
    VALID_SHARE,
    Borders,
    CacheWhere,
    Decode,
    FrozenNorms,
    HeadName,
    LabelFrom,
    Mix,
    OnBadFile,
    PresizeMethod,
    RecipeName,
    Split,
    TrackerName,
    check_range,
    check_split,
)

PATHS = ("data", "labels", "weights", "cache_dir", "out", "config", "resume")  # settings
NOT_PATHS = {"data": ("sample",), "weights": ("default", "none")}  # values of theirs that are no paths
OF_ONE_RUN = ("out", "config", "resume")  # settings: where a run is, and which run it repeats or continues
MAX_FOLDS = 1000


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The images, their labels, and their split."""

    title = "data"

    data: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder of images (s3:// too), tar shards, a table (.csv, .tsv), or `sample`, a small synthetic set. Default:
    Oxford-IIIT Pet. As the first argument, it needs no --data."""
    label_from: LabelFrom = "auto"
    """Source of the labels. `auto`: folder names if there are two or more class folders, else file names."""
    label_pattern: Annotated[str, arg(metavar="REGEX")] = LABEL_PATTERN
    """Regular expression that is searched for in each file name; its first group is the label."""
    labels: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """Table with the columns file, label and optionally split (train, valid, test) or is_valid. Replaces the labels
    from names."""
    split: Split = "auto"
    """How validation images are chosen, unless folders named train and valid, or the table, say which: at random;
    `stratified`, the share of each class; or `fastai`, as its RandomSplitter does. `auto`: stratified if a class would
    have fewer than 5 validation images on average."""
    valid_share: Annotated[float, arg(metavar="SHARE")] = VALID_SHARE
    """Share of the images that validate."""
    k_fold: Annotated[tuple[int, int] | None, arg(metavar="I K")] = None
    """Instead of a share, fold I (from 0) of K stratified ones validates."""
    split_seed: int = 42
    """Seed of this choice."""
    on_bad_file: OnBadFile = "raise"
    """What to do with an unusable image: stop with an error, skip it, or replace it with another image."""
    max_pixels: int = MAX_PIXELS
    """Largest image to accept, in pixels."""


@dataclass(frozen=True, kw_only=True)
class SamplerFlags(DataFlags):
    """The images, their labels, their split, and how training images are sampled."""

    title = "data"

    sampler: Annotated[Literal["balanced"] | None, arg(metavar="balanced")] = None
    """`balanced` samples training images with replacement, every class equally often."""


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model and its pretrained weights."""

    title = "model"

    arch: str = "resnet34"
    """Any torchvision classification model, or timm/NAME."""
    weights: str = "default"
    """Pretrained weights: `default` (the library's best for ImageNet), `none`, a run folder, whose head is kept if its
    classes are the same, or a safetensors or pth file."""
    head: HeadName = "fastai"
    """The layers after the backbone: those of fastai, or a single linear layer on averaged features, the better choice
    for few images."""


@dataclass(frozen=True, kw_only=True)
class StepFlags:
    """The training step."""

    title = "schedule"

    batch_size: int = 64
    """Images per batch and process."""
    mix: Mix = "none"
    """Mix the images and labels of each training batch by mixup, CutMix, or one of both at random."""
    ema: Annotated[float | None, arg(metavar="DECAY")] = None
    """Decay per step of an exponential moving average of the weights, such as 0.99. The average is validated and
    saved."""
    clip_norm: Annotated[float | None, arg(metavar="NORM")] = None
    """Largest total norm of the gradients; larger gradients are scaled down to it."""


@dataclass(frozen=True, kw_only=True)
class RecipeFlags:
    """A named set of settings."""

    title = "recipe"

    recipe: RecipeName = "fastai"
    """Settings that other flags change: those of fastai, or better ones for the same or less time. `fastpets recipes`
    lists them. Defaults below are those of fastai."""


@dataclass(frozen=True, kw_only=True)
class LossFlags(StepFlags):
    """The training step and its loss."""

    title = "schedule"

    weight_decay: float = 0.01
    """Decoupled weight decay; none on norm layers and biases."""
    bn: FrozenNorms = "train"
    """Norm layers of frozen layer groups: continue to train them, as fastai does, or freeze them as well (eval).
    `fixed`: never train them but in the head."""
    label_smoothing: float = 0.0
    """Label smoothing of the training loss."""
    class_weights: bool = False
    """Weight the training loss by inverse class frequency."""


@dataclass(frozen=True, kw_only=True)
class ScheduleFlags(LossFlags):
    """The phases of training, the training step and its loss."""

    title = "schedule"

    epochs: int = 6
    """Epochs that train all layers. With --resume, a higher number than the run's adds a cycle of these epochs."""
    freeze_epochs: int = 3
    """Epochs before these, which train only the head and the norm layers. Used with pretrained weights only."""
    lr: Annotated[str, arg(metavar="RATE|FROM:TO|auto")] = "2e-3"
    """Highest learning rate of the frozen phase; the unfrozen phase uses half of it, and less in earlier layers.
    With FROM:TO, the unfrozen phase uses FROM in the first layers and TO in the last ones.
    `auto`: the suggestion of the learning rate finder."""
    schedule: Annotated[str | None, arg(metavar='"PHASE EPOCHS RATE, ..."')] = None
    """Phases of one cycle each, such as "frozen 3 3e-3, unfrozen 12 1e-6:1e-4". `fitted` fits a linear head to the
    features of the frozen backbone, for which each image passes it once. Replaces --epochs, --freeze-epochs and
    --lr."""
    initial_size: Annotated[str | None, arg(metavar="PIXELS|HxW")] = None
    """Size of training images in the first epoch. They grow from epoch to epoch, up to `size` in the last one."""
    accumulate: int = 1
    """Batches per optimizer step; their gradients are averaged."""


@dataclass(frozen=True, kw_only=True)
class AugmentationFlags:
    """The model's input, and the augmentation of training images."""

    title = "augmentation"

    size: Annotated[str, arg(metavar="PIXELS|HxW")] = "224"
    """Size of the model's input, in pixels: the side of a square, or HEIGHTxWIDTH."""
    augment: PolicyName = "fastai"
    """Augmentation of training images: `fastai`; `trivial-geometric`, one random transform per image; or `none`."""
    presize: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Shorter side to which larger images are shrunk after decoding. Default: 4 times that of the model's input."""
    presize_method: PresizeMethod = "crop"
    """How an image of another aspect ratio is fitted: crop it, distort it (squish), or pad it."""
    borders: Borders = "reflect"
    """Pixels outside the image: its reflection, its outermost pixels, or black (zeros)."""
    supersample: int = 1
    """Multiplies the number of samples per output pixel and axis, 1 to 4. 2 is less aliased than 1, and slower."""
    seed: int = 0
    """Seed of the new layers' weights, the order of the images, and augmentation."""


@dataclass(frozen=True, kw_only=True)
class ValidationFlags:
    """The model's input in validation."""

    title = "augmentation"

    valid_size: Annotated[str | None, arg(metavar="PIXELS|HxW")] = None
    """Size of images in validation and prediction, if another one. Default: `size`."""


@dataclass(frozen=True, kw_only=True)
class MachineFlags:
    """The use of the machine."""

    title = "machine"

    num_workers: Annotated[int | None, arg(metavar="N")] = None
    """Threads that read and decode images and that train on a CPU. Default: this process's share of the processors."""


@dataclass(frozen=True, kw_only=True)
class SpeedFlags(MachineFlags):
    """The use of the machine."""

    title = "machine"

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    amp: bool = False
    """Train with automatic mixed precision."""
    amp_dtype: AmpDtype = "auto"
    """Data type of --amp. `auto`: bfloat16 if the hardware supports it."""
    compile: bool = False
    """Compile the model with torch.compile."""
    decode: Decode = "exact"
    """`fast` decodes large JPEGs, which are shrunk anyway, at a smaller size. Pixels differ a little. Only on a CPU."""
    cache: CacheWhere = "none"
    """Where decoded images are kept from the first epoch on: in memory of the host or the device; on `disk`, for later
    runs, too; or `auto`, the first of device, host and disk that has room for all images."""
    cache_dir: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder of the cache on disk. Default: the user's cache folder. `fastpets cache` lists and clears it."""
    cache_gb: Annotated[float | None, arg(metavar="GB")] = None
    """Most that the cache may take; on disk, all datasets together. Default: half of what is free."""


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """What a run computes and writes."""

    title = "run"

    folds: Annotated[int, arg(metavar="K")] = 0
    """Cross-validation: train K runs, each of which validates on another of K stratified folds, and report the mean and
    the spread of the error rate. 0 for a single run."""
    metrics: tuple[MetricName, ...] = ()
    """Validation metrics besides the error rate; `recall` is computed for each class."""
    tta: Annotated[int, arg(metavar="N")] = 0
    """Augmented versions of each image for test-time augmentation after training; 0 for none."""
    evaluate_test: bool = False
    """After training, evaluate the model on the test images: those in a folder named test beside train and valid, or
    with this split in the table. They are used for nothing else."""
    track: tuple[TrackerName, ...] = ()
    """Also log losses, learning rates and metrics to these trackers, whose own environment variables say where."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Run folder; must be new or empty. Default: runs/DATE_TIME_ARCH."""
    config: Annotated[Path | None, arg(metavar="RUN|FILE")] = None
    """Take the settings of another run from its config.json. Flags change them; `None` stands for no value, and a list
    flag alone for none, as in `--track`."""
    resume: Annotated[Path | None, arg(metavar="RUN|CHECKPOINT")] = None
    """Resume an interrupted run with its own settings, from its latest checkpoint or from the given one. Add --data if
    the images have moved, and --epochs or --schedule to train for more epochs."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(DataFlags, AugmentationFlags, MachineFlags):
    """The settings of a data set and of its preprocessing and augmentation."""

    def __post_init__(self) -> None:
        self.preprocessing()
        check_split(self.split, self.valid_share, self.k_fold)
        check_range("split_seed", self.split_seed, 0, MAX_SEED)
        check_range("seed", self.seed, 0, MAX_SEED)
        if self.num_workers is not None:
            check_range("num_workers", self.num_workers, 0, MAX_WORKERS)

    def preprocessing(self, **others: Any) -> Preprocessing:
        """The model's preprocessing. `others` are the fields that depend on the model: mean, std and dtype."""
        return Preprocessing(
            size=parse_size("size", self.size),
            presize=self.presize,
            presize_method=self.presize_method,
            borders=self.borders,
            supersample=self.supersample,
            max_pixels=self.max_pixels,
            **others,
        )


@dataclass(frozen=True, kw_only=True)
class LearnerConfig(DataConfig, SamplerFlags, ModelFlags, StepFlags, ValidationFlags, SpeedFlags):
    """The settings of a learner that affect its speed: those of its data, its model and its train step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.options()
        if self.valid_size is not None:
            for side in parse_size("valid_size", self.valid_size):
                check_range("valid_size", side, *LIMITS["size"])
        check_range("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        if self.cache_gb is not None:
            check_range("cache_gb", self.cache_gb, 0, MAX_CACHE_GB)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise InvalidArgumentError(f"device: {self.device!r}, expected auto, cpu, cuda or cuda:N")

    def options(self) -> TrainingOptions:
        """The learner's options: the settings of the same names."""
        names = [field.name for field in fields(TrainingOptions) if hasattr(self, field.name)]
        values = {name: getattr(self, name) for name in names}
        if values.get("initial_size") is not None:
            values["initial_size"] = parse_size("initial_size", values["initial_size"])
        return TrainingOptions(**values)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RecipeFlags, LearnerConfig, ScheduleFlags, OutputFlags):
    """Train an image classifier: the head first, then the whole network, as fastai's fine_tune does.

    Without `data`, the data set is Oxford-IIIT Pet, 37 breeds, downloaded once into the user's cache folder.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.phases(pretrained=True)
        check_range("epochs", self.epochs, 0, MAX_EPOCHS)
        check_range("freeze_epochs", self.freeze_epochs, 0, MAX_EPOCHS)
        if self.schedule is not None:
            phases = parse_schedule(self.schedule)
            num_epochs = sum(phase.epochs for phase in phases)
            if self.head != "linear" and any(phase.fits_head for phase in phases):
                raise InvalidArgumentError(f"schedule: 'fitted' with head={self.head!r}; use head='linear'")
            for name in ("epochs", "freeze_epochs", "lr"):
                if getattr(self, name) != getattr(TrainConfig, name) and self.resume is None:
                    raise InvalidArgumentError(
                        f"{name}: given with schedule={self.schedule!r}, which has the epochs and the rates of all "
                        f"phases; {'change it' if self.recipe != 'fastai' else 'leave out one of the two'}"
                    )
        else:
            num_epochs = self.epochs + (0 if self.weights == "none" else self.freeze_epochs)
        if num_epochs == 0:
            raise InvalidArgumentError("epochs: 0 in all phases, expected at least one epoch")
        if self.folds:
            check_range("folds", self.folds, 2, MAX_FOLDS)
            if self.k_fold is not None:
                raise InvalidArgumentError(
                    "k_fold: one fold, but folds trains on all of them; leave out one of the two"
                )
            check_split(self.split, self.valid_share, (0, self.folds))
        check_range("tta", self.tta, 0, MAX_TTA)
        if self.tta and self.augment == "none":
            raise InvalidArgumentError(
                f"tta: {self.tta}, but augment='none' gives no augmented versions; choose another, or tta=0"
            )

    def defaults(self) -> "TrainConfig | None":
        """The settings of the run that is resumed, with its folder as `out`, or those of `config` or `recipe`.

        None if there are none. Raises FastpetsError if they cannot be read.
        """
        if self.resume is None and self.config is not None:
            if self.recipe != "fastai":
                raise InvalidArgumentError("recipe: given with config, which has all settings; leave out one of them")
            return read_config(self.config, out=None, resume=None)
        if self.resume is None:
            return None if self.recipe == "fastai" else TrainConfig(recipe=self.recipe, **self.recipe_settings())
        if not self.resume.exists():  # training reports a missing run
            return None
        folder = self.resume if self.resume.is_dir() else self.resume.parent
        return read_config(folder, out=folder, resume=self.resume)

    def recipe_settings(self) -> dict[str, Any]:
        """The settings of the recipe, as it is defined."""
        return RECIPES[self.recipe]

    def phases(self, pretrained: bool) -> list[Phase]:
        """The phases of training: a single one without pretrained weights, or if `lr` is "auto"."""
        if self.schedule is not None:
            return parse_schedule(self.schedule)
        lr = parse_rate(self.lr)
        if pretrained and lr != "auto":
            return fine_tune_phases(self.epochs, lr, self.freeze_epochs)
        return [Phase(name="one cycle", epochs=self.epochs, lr=lr, frozen_to=0)]


def parse_size(name: str, text: str) -> tuple[int, int]:
    """(height, width) from "224" or "224x320", the value of the parameter `name`. Raises InvalidArgumentError."""
    if not re.fullmatch(r"\d+(x\d+)?", text.lower()):
        raise InvalidArgumentError(f"{name}: {text!r}, expected a number of pixels, or HEIGHTxWIDTH")
    sides = [int(side) for side in text.lower().split("x")]
    return sides[0], sides[-1]


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The settings with absolute paths, which name the same files in any working directory; `~` is the home folder."""
    changes: dict[str, Any] = {}
    for name in PATHS:
        value = getattr(config, name)
        if value is not None and value not in NOT_PATHS.get(name, ()) and not is_remote(str(value)):
            changes[name] = type(value)(os.path.abspath(os.path.expanduser(value)))
    return replace(config, **changes)


def read_settings(run: Path) -> dict[str, Any]:
    """The settings in a run folder's config.json, or in that file. Raises FastpetsError if they cannot be read."""
    return read_about(run / CONFIG if run.is_dir() else run)["settings"]


def read_config(run: Path, **changes: Any) -> TrainConfig:
    """The settings as `read_settings` reads them, with `changes`, as a TrainConfig. Raises FastpetsError."""
    # Of an earlier version, whose only split was "random", and whose only tracker was a flag of its own.
    values = {"split": "random", "track": (), **read_settings(run), **changes}
    if values.pop("tensorboard", False):
        values["track"] = ("tensorboard",)
    try:
        for name in ("labels", "cache_dir", "out", "config", "resume"):
            values[name] = None if values.get(name) is None else Path(values[name])
        if values.get("k_fold") is not None:
            values["k_fold"] = tuple(values["k_fold"])
        return TrainConfig(**values | {name: tuple(values[name]) for name in ("metrics", "track")})
    except (ValueError, TypeError, KeyError) as error:
        raise FastpetsError(f"{run}: {error}, expected the settings of a run") from None

"""The options of training, apart from its schedule. This module does not import torch: the command line uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, get_args

from fastpets.errors import InvalidArgumentError
from fastpets.training.history import EpochResult
from fastpets.utils.validation import MAX_SEED, FrozenNorms, Mix, check_choice, check_range

if TYPE_CHECKING:
    import torch

AmpDtype = Literal["auto", "float16", "bfloat16"]
MetricName = Literal["accuracy", "top5", "macro_f1", "recall"]

RESERVED = {field.name for field in fields(EpochResult)}  # no names of metrics, since they are columns of results
INTEGERS = ("accumulate", "seed")
# The lowest and the highest value of each option that is a number; those of initial_size are for each side.
LIMITS: dict[str, tuple[float, float]] = {
    "weight_decay": (0, 10),
    "label_smoothing": (0, 1),
    "accumulate": (1, 65536),
    "clip_norm": (1e-12, 1e12),
    "ema": (0, 1),
    "initial_size": (8, 4096),
    "seed": (0, MAX_SEED),
}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a learner trains, apart from its schedule. The defaults are fastai's.

    Raises InvalidArgumentError for values that are not possible.

    Args:
        amp: automatic mixed precision.
        amp_dtype: the dtype of autocast if `amp` is set. "auto" is bfloat16 where the hardware has it, else float16 on
            a GPU and no mixed precision on a CPU. With float16, gradients are scaled.
        weight_decay: decoupled, as in AdamW; none on norm layers and biases.
        bn: norm layers of frozen groups: "train" keeps training them, as fastai does; "eval" also freezes their
            parameters and statistics; "fixed" does so in all groups but the last, even while they train. A Classifier
            without pretrained weights trains them all.
        loss: training loss instead of cross entropy: a module or function of logits (B, C) and labels (B,) int64, or
            probabilities (B, C) with `mix`, that gives a scalar. The validation loss is plain cross entropy.
        label_smoothing: of the training loss, 0 to 1; the validation loss is plain cross entropy.
        class_weights: of the training loss: a tensor (C,), or True for the inverse frequencies of the training labels.
        mix: "mixup", "cutmix", "both" or "none"; or a function that maps the images and labels of a training batch to
            mixed ones.
        accumulate: batches per optimizer step; their gradients are averaged.
        clip_norm: largest total norm of the gradients.
        ema: decay per step of an exponential moving average of the weights, which is then validated and saved.
        metrics: what to compute besides the error rate: "accuracy", "top5", "macro_f1", "recall" (of each class). Or a
            dict, by name, of these, of torchmetrics.Metric objects, and of functions of the probabilities (N, C) and
            labels (N,) int64 of all validation images, on the CPU, that give a number.
        initial_size: height and width, in pixels, of the training images in the first epoch; one number means a square.
            They grow from epoch to epoch up to the training loader's size.
        compile: compile the model with torch.compile.
        seed: of dropout and mixing, and of the model's new layers if the learner makes the model. The loader's seed
            determines the order of the images and their augmentation.
    """

    amp: bool = False
    amp_dtype: AmpDtype = "auto"
    weight_decay: float = 0.01
    bn: FrozenNorms = "train"
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    label_smoothing: float = 0.0
    class_weights: bool | torch.Tensor = False
    mix: Mix | Callable[..., Any] = "none"
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    metrics: Sequence[MetricName] | Mapping[str, MetricName | Callable[..., Any]] = ()
    initial_size: int | tuple[int, int] | None = None
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("amp_dtype", self.amp_dtype, AmpDtype)
        check_choice("bn", self.bn, FrozenNorms)
        if not callable(self.mix):
            check_choice("mix", self.mix, Mix)
        _check_metrics(self.metrics)
        self._check_loss()
        for name, limits in LIMITS.items():
            if name != "initial_size" and (value := getattr(self, name)) is not None:
                check_range(name, value, *limits)
        for name in INTEGERS:
            if not isinstance(value := getattr(self, name), Integral):
                raise InvalidArgumentError(f"{name}: {value}, expected an integer")
        if self.initial_size is not None:
            size = self.initial_size
            sides = tuple(size) if isinstance(size, Sequence) else (size, size)
            if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
                raise InvalidArgumentError(f"initial_size: {size}, expected a number of pixels, or height and width")
            for side in sides:
                check_range("initial_size", side, *LIMITS["initial_size"])
            object.__setattr__(self, "initial_size", sides)  # the dataclass is frozen for everyone else

    def _check_loss(self) -> None:
        if self.loss is None:
            return
        if not callable(self.loss):
            raise InvalidArgumentError(f"loss: {self.loss!r}, expected a module or a function of logits and labels")
        given = {"label_smoothing": self.label_smoothing != 0, "class_weights": self.class_weights is not False}
        for name, is_given in given.items():
            if is_given:
                raise InvalidArgumentError(f"{name}: only for the default loss, cross entropy; build it into your loss")


def _check_metrics(metrics: Any) -> None:
    """Raises InvalidArgumentError unless these are names of metrics, or names with metrics or functions."""
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise InvalidArgumentError(f"metrics: {metrics!r}, expected a tuple of names, or a dict")
    if not isinstance(metrics, Mapping):
        for name in metrics:
            if not isinstance(name, str):
                raise InvalidArgumentError(
                    f"metrics: {name!r} without a name, expected a dict such as {{'f1': metric}}"
                )
            check_choice("metrics", name, MetricName)
        return
    for name, metric in metrics.items():
        if not isinstance(name, str) or not name or set(name) & set("./") or name in RESERVED:
            raise InvalidArgumentError(
                f"metrics: the name {name!r}, expected one without . and /, and none of {', '.join(sorted(RESERVED))}"
            )
        if isinstance(metric, str):
            check_choice(f"metrics: {name}", metric, MetricName)
        elif isinstance(metric, type) or not callable(metric):
            raise InvalidArgumentError(
                f"metrics: {name}: {metric!r}, expected a torchmetrics.Metric object, a function of probabilities and "
                f"labels, or one of {', '.join(get_args(MetricName))}"
            )

"""The options: how a learner trains, beside its schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastpets.utils.validation import FrozenNorms, check_range

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a learner trains; by default as fastai's does.

    Args:
        amp_dtype: the precision of autocast, None for full precision; float16 brings a gradient scaler with it.
        weight_decay: decoupled; none on norms and biases.
        bn: whether batch norms and other norm layers of frozen groups "train" on, as fastai's do, or keep weights and
            statistics, "eval".
        label_smoothing, class_weights: of the training loss, the weights (C,); the validation loss is the plain one.
        mix: called with the images and labels of each training batch; see fastpets.training.mixing.
        accumulate: batches to a step of the optimizer.
        clip_norm: the largest norm of all gradients together.
        ema_decay: validate and keep an exponential moving average of the weights, of this decay a step.
        metrics: names from fastpets.training.metrics.NAMES, beside the error rate.
        smallest_size: height and width of the first epoch's images, which grow to the loader's until the last.
        compile: torch.compile the model.
        seed: of all that training draws from torch, such as dropout.
    """

    amp_dtype: torch.dtype | None = None
    weight_decay: float = 0.01
    bn: FrozenNorms = "train"
    label_smoothing: float = 0.0
    class_weights: torch.Tensor | None = None
    mix: Callable[..., Any] | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    metrics: Sequence[str] = ()
    smallest_size: tuple[int, int] | None = None
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 1)
        check_range("accumulate", self.accumulate, 1, 65536)
        if self.clip_norm is not None:
            check_range("clip_norm", self.clip_norm, 1e-12, 1e12)
        if self.ema_decay is not None:
            check_range("ema_decay", self.ema_decay, 0, 1)

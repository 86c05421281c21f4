"""What a learner has done: the results of its epochs, and how far it is in a fit."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One epoch in numbers.

    `batches` counts all that were trained on until its end. `seconds` is the whole epoch's time, `images_per_sec`
    training's alone, and `input_share` the part of that in which it waited for images.
    """

    phase: str
    epoch: int
    batches: int
    train_loss: float
    valid_loss: float
    error_rate: float
    metrics: dict[str, float]
    seconds: float
    images_per_sec: float
    input_share: float


@dataclass(kw_only=True)
class Progress:
    """How far a fit is: in which of its phases, and in which epoch of that."""

    phase: int = 0
    rates: list[float] | None = None  # the phase's highest, one for each layer group; None before it begins
    epoch: int = 0
    num_steps: int = 0  # of the optimizer, in the phase
    num_batches: int = 0  # in the epoch
    is_trained: bool = False  # only the epoch's validation is left

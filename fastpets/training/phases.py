"""Phases of training and their learning rates, and parsers of both."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from fastpets.errors import InvalidArgumentError
from fastpets.utils.validation import MAX_EPOCHS, check_range

# A float is the rate of all layer groups. slice(a, b) is a range from a in the first group to b in the last;
# slice(b) is b in the last group and b / 10 in all others.
Rate = float | slice
Auto = Literal["auto"]  # the suggestion of the learning rate finder, which runs when the phase begins

MIN_RATE, MAX_RATE = 1e-12, 1000


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Epochs in one cycle of the learning rate. Raises InvalidArgumentError for values that are not possible.

    Args:
        name: shown with each epoch.
        epochs: how many.
        lr: the highest learning rate, or "auto".
        frozen_to: the first layer group to train, counted from the end if negative; None leaves the frozen layers and
            the optimizer as they are.
        pct_start: share of the steps, 0 to 1, in which the rate rises from `lr` / `div` to `lr`; then it falls.
        div: ratio of the highest rate to the first one.
        fits_head: whether the epoch fits the model's linear head to the features of the frozen backbone, instead of
            training in steps: see FITTED.
    """

    name: str
    epochs: int
    lr: Rate | Auto
    frozen_to: int | None = None
    pct_start: float = 0.25
    div: float = 25.0
    fits_head: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, Integral):
            raise InvalidArgumentError(f"epochs: {self.epochs!r}, expected an integer")
        check_range("epochs", self.epochs, 0, MAX_EPOCHS)
        check_range("pct_start", self.pct_start, 0, 1)
        check_range("div", self.div, 1, 1e9)
        if self.lr != "auto":
            rates = [self.lr.start, self.lr.stop] if isinstance(self.lr, slice) else [self.lr]
            if isinstance(self.lr, slice) and self.lr.start is None:
                rates = rates[1:]
            for rate in rates:
                if not isinstance(rate, Real):
                    raise InvalidArgumentError(
                        f"lr: {self.lr!r}, expected a number, slice(FROM, TO), slice(TO) or 'auto'"
                    )
                check_range("lr", float(rate), MIN_RATE, MAX_RATE)


def fine_tune_phases(epochs: int, base_lr: Rate, freeze_epochs: int) -> list[Phase]:
    """fastai's fine_tune: trains the head first, then all layers at rates that are lower in earlier layers.

    If `base_lr` is a range, its end is the rate of the first phase, and the whole range that of the second.
    """
    is_range = isinstance(base_lr, slice) and base_lr.start is not None
    top = base_lr.stop if isinstance(base_lr, slice) else base_lr
    rates = base_lr if is_range else slice(top / 2 / 100, top / 2)
    return [
        Phase(name="frozen", epochs=freeze_epochs, lr=slice(top), frozen_to=-1, pct_start=0.99),
        Phase(name="unfrozen", epochs=epochs, lr=rates, frozen_to=0, pct_start=0.3, div=5.0),
    ]


# The linear head is fitted to the features of the frozen backbone, in one epoch without steps; its rate has no meaning.
FITTED = Phase(name="fitted", epochs=1, lr=1e-3, frozen_to=-1, fits_head=True)


def parse_rate(text: str) -> Rate | Auto:
    """Parses a learning rate: "1e-3", "1e-6:1e-4", ":1e-3" or "auto". Raises InvalidArgumentError."""
    if text == "auto":
        return "auto"
    try:
        numbers = [float(part) if part else None for part in text.split(":")]
    except ValueError:
        numbers = []
    valid = all(n is None or MIN_RATE <= n <= MAX_RATE for n in numbers)
    if len(numbers) not in (1, 2) or numbers[-1] is None or not valid:
        raise InvalidArgumentError(
            f"lr: {text!r}, expected a number from {MIN_RATE} to {MAX_RATE}, a range as 1e-6:1e-4, or auto"
        )
    return numbers[0] if len(numbers) == 1 else slice(*numbers)  # type: ignore[return-value]


def parse_schedule(text: str) -> list[Phase]:
    """Parses phases, such as "frozen 3 3e-3, unfrozen 12 1e-6:1e-4", or "fitted". Raises InvalidArgumentError."""
    phases = []
    for part in text.split(","):
        fields = part.split()
        if fields == ["fitted"]:
            phases.append(FITTED)
            continue
        if len(fields) != 3 or fields[0] not in ("frozen", "unfrozen") or not fields[1].isdecimal():
            raise InvalidArgumentError(
                f"schedule: {part.strip()!r}, expected fitted, or frozen or unfrozen with a number of epochs and a "
                "rate, as in 'frozen 3 3e-3, unfrozen 12 1e-6:1e-4'"
            )
        name, epochs, lr = fields
        frozen_to = -1 if name == "frozen" else 0
        phases.append(Phase(name=name, epochs=int(epochs), lr=parse_rate(lr), frozen_to=frozen_to))
    return phases

"""Phases of training and their learning rates, in Python and as they are written on the command line."""

from dataclasses import dataclass
from typing import Literal

from fastpets.errors import FastpetsError

Rate = float | slice  # slice(a, b): from a in the first layer group to b in the last; slice(b): b, and b / 10 before
Auto = Literal["auto"]  # what the rate finder suggests when the phase begins


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Epochs in one cycle.

    `frozen_to`: how many layer groups do not train, from the end if negative; None leaves it as it is. During
    `pct_start` of the steps the rate rises from `lr` / `div` to `lr`, and then it falls.
    """

    name: str
    epochs: int
    lr: Rate | Auto
    frozen_to: int | None = None
    pct_start: float = 0.25
    div: float = 25.0


def fine_tune_phases(epochs: int, base_lr: Rate, freeze_epochs: int) -> list[Phase]:
    """fastai's fine_tune: the head first, then all layers at lower rates, the lower the earlier.

    For a range, its end is the head's rate, and the range itself that of all layers.
    """
    is_range = isinstance(base_lr, slice) and base_lr.start is not None
    top = base_lr.stop if isinstance(base_lr, slice) else base_lr
    rates = base_lr if is_range else slice(top / 2 / 100, top / 2)
    return [
        Phase(name="frozen", epochs=freeze_epochs, lr=slice(top), frozen_to=-1, pct_start=0.99),
        Phase(name="unfrozen", epochs=epochs, lr=rates, frozen_to=0, pct_start=0.3, div=5.0),
    ]


def parse_rate(text: str) -> Rate | Auto:
    """A rate as it is written on the command line: 1e-3, 1e-6:1e-4, :1e-3 or auto. Raises FastpetsError."""
    if text == "auto":
        return "auto"
    try:
        numbers = [float(part) if part else None for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or numbers[-1] is None or not all(n is None or 1e-12 <= n <= 1e3 for n in numbers):
        raise FastpetsError(f"--lr {text}: expected a number, a range as 1e-6:1e-4, or auto")
    return numbers[0] if len(numbers) == 1 else slice(*numbers)  # type: ignore[return-value]


def parse_schedule(text: str) -> list[Phase]:
    """Phases as they are written on the command line: "frozen 3 3e-3, unfrozen 12 1e-6:1e-4". Raises FastpetsError."""
    phases = []
    for part in text.split(","):
        words = part.split()
        if len(words) != 3 or words[0] not in ("frozen", "unfrozen") or not words[1].isdecimal():
            raise FastpetsError(
                f"--schedule {part.strip()!r}: expected frozen or unfrozen, a number of epochs and a rate, as in "
                "'frozen 3 3e-3, unfrozen 12 1e-6:1e-4'"
            )
        frozen_to = -1 if words[0] == "frozen" else 0
        phases.append(Phase(name=words[0], epochs=int(words[1]), lr=parse_rate(words[2]), frozen_to=frozen_to))
    return phases

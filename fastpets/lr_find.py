"""`fastpets lr-find`: runs the learning rate finder, prints its suggestions and draws its curve."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from fastpets.errors import InvalidArgumentError, out_must_be_writable
from fastpets.flags import with_flags
from fastpets.runs.config import LearnerConfig, LossFlags
from fastpets.training.phases import MAX_RATE, MIN_RATE
from fastpets.utils.validation import check_range


@dataclass(frozen=True, kw_only=True)
class LrFindConfig(LearnerConfig, LossFlags):
    """Train at growing learning rates until the loss diverges, and suggest rates. Keeps no weights.

    Takes the flags of `fastpets train` that affect the loss of its first phase, in which only the head and the norm
    layers are trained if the weights are pretrained.
    """

    lowest: float = 1e-7
    """The first learning rate."""
    highest: float = 10.0
    """The last one."""
    num_steps: int = 100
    """Batches to train on, at most."""
    out: Annotated[Path, arg(metavar="FILE.png")] = Path("lr_finder.png")
    """File for the curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("lowest", self.lowest, MIN_RATE, MAX_RATE)
        check_range("highest", self.highest, self.lowest, MAX_RATE)
        check_range("num_steps", self.num_steps, 8, 1_000_000)


def lr_find(config: LrFindConfig) -> int:
    """Prints the suggestions and writes the curve. Raises FastpetsError if there are none."""
    from fastpets.runs.build import build_learner, set_up_process
    from fastpets.runs.folder import check_writable
    from fastpets.training import distributed
    from fastpets.utils.atomic import write_atomically

    if not config.out.parent.is_dir():
        raise InvalidArgumentError(f"out: {config.out.parent}: no such folder, expected an existing one")
    check_writable(config.out.parent)  # before anything that takes long
    with distributed.only_first_process_prints():
        try:
            curve = build_learner(config, set_up_process(config)).lr_find(
                config.lowest, config.highest, config.num_steps
            )
        finally:
            distributed.stop()
    if not distributed.is_first_process():
        return 0
    with out_must_be_writable(config.out):
        write_atomically(config.out, curve.plot)
    print(f"valley        {curve.valley:.2e}  in the middle of the longest descent; what train --lr auto takes")
    print(f"steep         {curve.steep:.2e}  where the loss falls most steeply")
    print(f"minimum / 10  {curve.minimum:.2e}  a tenth of the rate with the lowest loss")
    if warning := curve.warning():
        print(with_flags(warning, LrFindConfig))
    print(f"curve: {config.out}")
    return 0


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["lr-find", *sys.argv[1:]]))

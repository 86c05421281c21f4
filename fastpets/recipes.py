"""`fastpets recipes`: lists the training recipes and their settings."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from fastpets.flags import command_line
from fastpets.runs.config import TrainConfig
from fastpets.runs.recipes import RECIPES, SUMMARIES


@dataclass(frozen=True, kw_only=True)
class RecipesConfig:
    """List the recipes of `fastpets train --recipe NAME`, and the flags that each stands for.

    Flags change single settings: `fastpets train --recipe fast --size 288`.
    """


def recipes(config: RecipesConfig) -> int:
    """Prints what each recipe is for, and its flags."""
    for name, settings in RECIPES.items():
        flags = command_line("train", TrainConfig(**settings)).removeprefix("fastpets train").strip()
        print(f"{name:<8} {SUMMARIES[name]}\n         {flags or 'no flags'}")
    return 0


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["recipes", *sys.argv[1:]]))

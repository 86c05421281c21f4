"""Recipes: named settings of `fastpets train`. docs/recipes.md has the reasons and bench/README.md the figures.

Does not import torch.
"""

from __future__ import annotations

from typing import Any

from fastpets.utils.validation import RecipeName

# A frozen backbone whose norm layers are fixed needs only a forward pass, and keeps what it has learned.
FROZEN: dict[str, Any] = {"bn": "fixed", "head": "linear", "valid_size": "256"}

# What differs from the defaults, by the name of the recipe.
RECIPES: dict[RecipeName, dict[str, Any]] = {
    "fastai": {},
    "fast": {**FROZEN, "epochs": 0, "freeze_epochs": 9, "lr": "4e-3"},
    "strong": {**FROZEN, "epochs": 4, "freeze_epochs": 12, "lr": "4e-3", "ema": 0.95},
}
SUMMARIES: dict[RecipeName, str] = {
    "fastai": "the chapter's fine_tune: three frozen epochs, six of the whole network; the default",
    "fast": "a linear layer on the frozen backbone: a good model in the shortest time, best for few images",
    "strong": "the same for longer, then the whole network: the better model",
}

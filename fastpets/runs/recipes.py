"""Recipes: named settings of `fastpets train`. docs/recipes.md has the reasons and bench/README.md the figures.

Does not import torch.
"""

from __future__ import annotations

from typing import Any

from fastpets.utils.validation import RecipeName

# A frozen backbone whose norm layers are fixed needs only a forward pass, and keeps what it has learned.
FROZEN: dict[str, Any] = {"bn": "fixed", "head": "linear", "lr": "4e-3", "epochs": 0}

# What differs from the defaults, by the name of the recipe.
RECIPES: dict[RecipeName, dict[str, Any]] = {
    "fastai": {},
    "fast": {**FROZEN, "freeze_epochs": 9, "valid_size": "256"},
    "strong": {**FROZEN, "freeze_epochs": 20, "size": "256", "valid_size": "288", "ema": 0.95},
}
SUMMARIES: dict[RecipeName, str] = {
    "fastai": "the chapter's fine_tune: three frozen epochs, six of the whole network; the default",
    "fast": "a linear layer on the frozen backbone, for few images: a good model in the shortest time",
    "strong": "the same for longer, on larger images, and with averaged weights: the better model",
}

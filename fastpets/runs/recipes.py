"""Recipes: named settings of `fastpets train`. docs/recipes.md has the reasons and bench/README.md the figures.

Does not import torch.
"""

from __future__ import annotations

from typing import Any

from fastpets.utils.validation import RecipeName

# A linear layer is fitted to what the pretrained backbone finds in each image, in one pass over the images.
FITTED: dict[str, Any] = {"head": "linear", "bn": "fixed", "size": "256", "schedule": "fitted"}

# A fitted layer is right for nearly all training images. Their loss would be too small to train the backbone; with
# mixup it is not. After few steps, for few images, the moving average over 100 steps is close to the fitted model;
# after many it is the trained one.
TRAINED: dict[str, Any] = {"schedule": "fitted, unfrozen 4 1e-4:1e-3", "mix": "mixup", "ema": 0.99}

# What differs from the defaults, by the name of the recipe.
RECIPES: dict[RecipeName, dict[str, Any]] = {
    "fastai": {},
    "fast": FITTED,
    "strong": {**FITTED, **TRAINED},
}
SUMMARIES: dict[RecipeName, str] = {
    "fastai": "the chapter's fine_tune: three frozen epochs, six of the whole network; the default",
    "fast": "a linear layer, fitted to the features of the pretrained backbone: one pass over the images",
    "strong": "a fitted linear layer, then four epochs of the whole network, with mixup and averaged weights",
}

"""A fast image loader on NVIDIA DALI, and a compact PyTorch trainer fed by it."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# Each public name, by the module that is imported when the name is first used, so that --help need not wait for torch.
_HOMES = {
    "Augment": "augment.policy",
    "BadFileError": "errors",
    "Batch": "loading.batch",
    "FastpetsError": "errors",
    "Interpretation": "analysis.interpretation",
    "ImageDataset": "data.dataset",
    "Learner": "training.learner",
    "Loader": "loading.loader",
    "Phase": "training.phases",
    "TrainingOptions": "training.options",
    "create_model": "models.classifier",
    "loaders": "loading.opening",
}

__all__ = [*_HOMES]

try:
    __version__ = version("fastpets")
except PackageNotFoundError:  # used from a checkout
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastpets' has no attribute {name!r}")
    value = getattr(import_module(f"fastpets.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

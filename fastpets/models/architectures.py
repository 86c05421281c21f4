"""The names of all architectures: torchvision's, and timm's as timm/NAME."""

import difflib

import torchvision

from fastpets.errors import FastpetsError, InvalidArgumentError


def architectures() -> dict[str, bool]:
    """Whether there are pretrained weights, by the name of the architecture; timm's only if timm is installed.

    Of timm's, NAME has the weights of its default tag. NAME.TAG stands for each tag.
    """
    models = torchvision.models
    found = {name: bool(list(models.get_model_weights(name))) for name in models.list_models(module=models)}
    try:
        import timm
    except ImportError:
        return found
    tagged = timm.list_pretrained()
    with_weights = {name.partition(".")[0] for name in tagged}
    found |= {f"timm/{name}": name in with_weights for name in timm.list_models()}
    return found | {f"timm/{name}": True for name in tagged}


def check_architecture(arch: str) -> None:
    """Raises InvalidArgumentError for an unknown architecture, FastpetsError for timm/NAME if timm is missing."""
    if not arch.startswith("timm/"):
        if arch not in torchvision.models.list_models(module=torchvision.models):
            expected = "one of torchvision's classification models, or timm/NAME"
            raise InvalidArgumentError(f"arch: {arch!r}, expected {expected}{did_you_mean(arch)}")
        return
    try:
        import timm
    except ImportError:
        raise FastpetsError(f"arch: {arch}: timm is not installed; pip install timm") from None
    name = arch.removeprefix("timm/")
    if not timm.is_model(name):
        raise InvalidArgumentError(f"arch: {arch}: timm has no such model{did_you_mean(arch)}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag, the part after the dot
        raise InvalidArgumentError(f"arch: {arch}: {error}") from None


def did_you_mean(arch: str) -> str:
    """The end of a message about an unknown architecture: up to three similar names."""
    similar = difflib.get_close_matches(arch, architectures(), n=3)
    return f"; did you mean {' or '.join(similar)}?" if similar else "; `fastpets models` lists all"

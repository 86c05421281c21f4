"""The names of all architectures: torchvision's, and timm's as timm/NAME."""

import difflib

import torchvision


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


def did_you_mean(arch: str) -> str:
    """The end of a message about an unknown architecture: up to three similar names."""
    similar = difflib.get_close_matches(arch, architectures(), n=3)
    return f"; did you mean {' or '.join(similar)}?" if similar else "; `fastpets models` lists all"

"""Backbones: torchvision's and timm's classification networks without their classifier, and pretrained weights."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.models.weights import short_reason

AUXILIARY_CLASSIFIERS = ("aux1", "aux2", "AuxLogits")  # GoogLeNet's and Inception's, for a second loss in training


class ConcatPool(nn.Module):
    """Maximum and mean of each channel: (B, F, H, W) to (B, 2F, 1, 1), as fastai's AdaptiveConcatPool2d.

    timm's "catavgmax" has the mean first. Trained heads depend on the order, so timm's models are pooled by this, too.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([features.amax((2, 3), keepdim=True), features.mean((2, 3), keepdim=True)], dim=1)


class Backbone(NamedTuple):
    """A network without its classifier.

    Attributes:
        module: maps images (B, 3, H, W) to features, (B, F) or (B, F, 1, 1).
        network: torchvision's or timm's network, which is `module` or a part of it. Its parameters have the same names
            as in the library's weight files.
        num_features: F.
        removed: names of the modules that were removed from `network`. Their weights in a file are ignored.
        mean, std: normalisation that the pretrained weights expect.
    """

    module: nn.Module
    network: nn.Module
    num_features: int
    removed: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def create_backbone(arch: str, weights: str) -> Backbone:
    """Builds the backbone `arch` with `weights`; both are as in create_model. Raises FastpetsError."""
    if arch.startswith("timm/"):
        backbone = _timm_backbone(arch.removeprefix("timm/"), weights)
    else:
        backbone = _torchvision_backbone(arch, weights)
    if weights not in ("default", "none"):
        _load_pretrained(backbone, Path(weights))
    return backbone


def _torchvision_backbone(arch: str, weights: str) -> Backbone:
    if arch not in torchvision.models.list_models(module=torchvision.models):
        raise InvalidArgumentError(f"arch: {arch!r}, expected one of torchvision's classification models, or timm/NAME")
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if weights == "default":
        pretrained = torchvision.models.get_model_weights(arch).DEFAULT
        mean, std = tuple(pretrained.transforms().mean), tuple(pretrained.transforms().std)
        try:
            network = torchvision.models.get_model(arch, weights=pretrained)
        except (OSError, RuntimeError) as error:  # no connection, or a wrong checksum
            place = Path(torch.hub.get_dir(), "checkpoints", Path(pretrained.url).name)
            raise FastpetsError(
                f"weights: {pretrained.url} cannot be downloaded ({error}); save it as {place}, give another file, or "
                "use weights='none'"
            ) from None
    else:
        network = torchvision.models.get_model(arch, weights=None)
    if hasattr(network, "transform_input"):  # GoogLeNet and Inception: their weights expect mean 0.5 and std 0.5
        network.transform_input = True  # torchvision sets it only if it loads the weights itself
    auxiliary = tuple(name for name in AUXILIARY_CLASSIFIERS if hasattr(network, name))
    for name in auxiliary:
        setattr(network, name, None)
        network.aux_logits = False
    classifier, num_features = _remove_classifier(network)
    return Backbone(network, network, num_features, (classifier, *auxiliary), mean, std)


def _remove_classifier(network: Any) -> tuple[str, int]:
    """Removes a torchvision network's classifier; returns its name and the number of features without it.

    Where it was one linear layer on globally averaged features, ConcatPool replaces the average.
    """
    name, classifier = list(network.named_children())[-1]
    layers = [layer for layer in classifier.modules() if not isinstance(layer, nn.Sequential)]
    linears = [layer_name for layer_name, layer in classifier.named_modules() if isinstance(layer, nn.Linear)]
    if not linears:  # SqueezeNet: a convolution and a pool
        convolution = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
        setattr(network, name, ConcatPool())
        return name, 2 * convolution.in_channels
    num_features = classifier.get_submodule(linears[-1]).in_features
    if any(not isinstance(layer, nn.Linear | nn.Dropout) for layer in layers) or len(linears) > 1:
        name = f"{name}.{linears[-1]}"  # the layers before the last one are pretrained too, and stay
        network.set_submodule(name, nn.Identity())
        return name, num_features
    setattr(network, name, nn.Identity())
    pool = getattr(network, "avgpool", None)
    if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1)):
        network.avgpool = ConcatPool()
        return name, 2 * num_features
    return name, num_features


class _TimmFeatures(nn.Module):
    """A timm network's pooled features: (B, 2F, 1, 1) by ConcatPool if it ends in a feature map, else timm's (B, F)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        is_map = network.pretrained_cfg.get("pool_size") and getattr(network, "output_fmt", "NCHW") == "NCHW"
        self.pool = ConcatPool() if is_map else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network.forward_features(images)
        return self.pool(features) if self.pool else self.network.forward_head(features, pre_logits=True)


def _timm_backbone(name: str, weights: str) -> Backbone:
    try:
        import timm
    except ImportError:
        raise FastpetsError(f"arch: timm/{name}: timm is not installed; pip install timm") from None
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:3])
        hint = f"; it has {similar}" if similar else ""
        raise InvalidArgumentError(f"arch: timm/{name}: timm has no such model{hint}")
    try:
        pretrained = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag, the part after the dot
        raise InvalidArgumentError(f"arch: timm/{name}: {short_reason(error)}") from None
    if weights == "default" and not pretrained.has_weights:
        raise FastpetsError(f"weights: timm has no pretrained weights of {name}; give a file, or use weights='none'")
    try:
        network = timm.create_model(name, pretrained=weights == "default", num_classes=0)
    except Exception as error:  # the hub's client raises errors of many types
        if weights != "default":
            raise
        hub = pretrained.hf_hub_id
        address = f"model.safetensors from https://huggingface.co/{hub}" if hub else pretrained.url
        raise FastpetsError(
            f"weights: timm cannot load its weights of {name} ({type(error).__name__}: {short_reason(error)}); "
            f"download {address} and give that file, or use weights='none'"
        ) from None
    config = network.pretrained_cfg
    module = _TimmFeatures(network).eval()
    with torch.no_grad():
        num_features = module(torch.zeros(1, *config["input_size"])).flatten(1).shape[1]
    module.train()
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return Backbone(module, network, num_features, names, tuple(config["mean"]), tuple(config["std"]))


def _load_pretrained(backbone: Backbone, file: Path) -> None:
    """Loads a weight file into a backbone, except for its removed modules. Raises FastpetsError."""
    if not file.is_file():
        raise InvalidArgumentError(
            f"weights: {file}: no such file, expected default, none, or a safetensors or pth file"
        )
    state: Any
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the file may have any content, and each reader raises errors of its own
        reason = f"{type(error).__name__}: {short_reason(error)}"
        raise FastpetsError(
            f"weights: {file}: not readable as weights ({reason}); expected a safetensors file, or one by torch.save"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):  # a training checkpoint
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FastpetsError(f"weights: {file}: no state dict, expected tensors by parameter name")
    removed = tuple(f"{name}." for name in backbone.removed)
    state = {name: value for name, value in state.items() if not name.startswith(removed)}
    try:
        missing, unexpected = backbone.network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise FastpetsError(
            f"weights: {file}: {str(error).splitlines()[-1].strip()}; is it of the same arch?"
        ) from None
    if missing or unexpected:
        raise FastpetsError(
            f"weights: {file}: {len(missing)} parameters missing ({', '.join(missing[:3])}) and {len(unexpected)} "
            f"unknown ({', '.join(unexpected[:3])}); is it of the same arch?"
        )

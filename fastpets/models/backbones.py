"""Backbones: torchvision's and timm's classification networks without their classifier, and pretrained weights."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from fastpets.data.network import check_connection
from fastpets.errors import FastpetsError, InvalidArgumentError, first_few, reason, warn
from fastpets.models.architectures import check_architecture
from fastpets.models.weights import read_tensors, short_reason
from fastpets.utils.validation import HeadName

DENSENET_LAYER = r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"  # torchvision's files have "norm.1" for its "norm1"
AUXILIARY_CLASSIFIERS = ("aux1", "aux2", "AuxLogits")  # GoogLeNet's and Inception's, for a second loss in training


class ConcatPool(nn.Module):
    """Maximum and mean of each channel: (B, F, H, W) to (B, 2F, 1, 1), as fastai's AdaptiveConcatPool2d.

    timm's "catavgmax" has the mean first. Trained heads depend on the order, so timm's models are pooled by this, too.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # As (B, H * W, F), so that the gradient, too, is channels_last; those of amax and mean over H and W are not.
        pixels = features.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([pixels.amax(1), pixels.mean(1)], dim=1)[:, :, None, None]


class MeanPool(nn.Module):
    """Mean of each channel: (B, F, H, W) to (B, F, 1, 1)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean((2, 3), keepdim=True)


class Pool(NamedTuple):
    """How a head pools feature maps: the module, and the number of features for each channel."""

    make: Callable[[], nn.Module]
    per_channel: int


POOLS: dict[HeadName, Pool] = {"fastai": Pool(ConcatPool, 2), "linear": Pool(MeanPool, 1)}


class TrainedHead(NamedTuple):
    """The head of a run: its kind, the names of its classes, and its tensors by parameter name."""

    name: str
    classes: tuple[str, ...]
    tensors: dict[str, torch.Tensor]


class Backbone(NamedTuple):
    """A network without its classifier.

    Attributes:
        module: maps images (B, 3, H, W) to features, (B, F) or (B, F, 1, 1).
        network: torchvision's or timm's network, which is `module` or a part of it. Its parameters have the same names
            as in the library's weight files.
        num_features: F.
        removed: names of the modules that were removed from `network`. Their weights in a file are ignored.
        mean, std: normalisation that the pretrained weights expect.
        run: the classes and the head of the run whose weights it has, or None.
    """

    module: nn.Module
    network: nn.Module
    num_features: int
    removed: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    run: TrainedHead | None = None


def create_backbone(arch: str, weights: str, head: HeadName = "fastai") -> Backbone:
    """Builds the backbone `arch` with `weights`, pooled for `head`, as in create_model. Raises FastpetsError."""
    check_backbone(arch, weights)
    if arch.startswith("timm/"):
        backbone = _timm_backbone(arch.removeprefix("timm/"), weights, POOLS[head])
    else:
        backbone = _torchvision_backbone(arch, weights, POOLS[head])
    if weights not in ("default", "none"):
        backbone = _load_pretrained(arch, backbone, Path(weights))
    return backbone


def check_backbone(arch: str, weights: str) -> None:
    """Raises FastpetsError for an unknown architecture, or a weight file that is not there. Loads nothing."""
    check_architecture(arch)
    if weights not in ("default", "none") and not (file := _weight_file(Path(weights))).is_file():
        raise InvalidArgumentError(
            f"weights: {file}: no such file, expected default, none, a run folder, or a safetensors or pth file"
        )


def _weight_file(path: Path) -> Path:
    """The file of the weights that a path names: itself, or a run folder's model."""
    return path / "model.safetensors" if path.is_dir() else path


def _torchvision_backbone(arch: str, weights: str, pool: Pool) -> Backbone:
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if weights == "default":
        pretrained = torchvision.models.get_model_weights(arch).DEFAULT
        mean, std = tuple(pretrained.transforms().mean), tuple(pretrained.transforms().std)
        place = Path(torch.hub.get_dir(), "checkpoints", Path(pretrained.url).name)
        try:
            if not place.exists():
                check_connection(pretrained.url)
            network = torchvision.models.get_model(arch, weights=pretrained)
        except (OSError, RuntimeError) as error:  # no connection, or a wrong checksum
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
    classifier, num_features = _remove_classifier(network, pool)
    return Backbone(network, network, num_features, (classifier, *auxiliary), mean, std)


def _remove_classifier(network: Any, pool: Pool) -> tuple[str, int]:
    """Removes a torchvision network's classifier; returns its name and the number of features without it.

    Where it was one linear layer on globally averaged features, `pool` replaces the average.
    """
    name, classifier = list(network.named_children())[-1]
    layers = [layer for layer in classifier.modules() if not isinstance(layer, nn.Sequential)]
    linears = [layer_name for layer_name, layer in classifier.named_modules() if isinstance(layer, nn.Linear)]
    if not linears:  # SqueezeNet: a convolution and a pool
        convolution = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
        setattr(network, name, pool.make())
        return name, pool.per_channel * convolution.in_channels
    num_features = classifier.get_submodule(linears[-1]).in_features
    if any(not isinstance(layer, nn.Linear | nn.Dropout) for layer in layers) or len(linears) > 1:
        name = f"{name}.{linears[-1]}"  # the layers before the last one are pretrained too, and stay
        network.set_submodule(name, nn.Identity())
        return name, num_features
    setattr(network, name, nn.Identity())
    average = getattr(network, "avgpool", None)
    if isinstance(average, nn.AdaptiveAvgPool2d) and average.output_size in (1, (1, 1)):
        network.avgpool = pool.make()
        return name, pool.per_channel * num_features
    return name, num_features


class _TimmFeatures(nn.Module):
    """A timm network's pooled features: by `pool` if it ends in a feature map, else timm's (B, F)."""

    def __init__(self, network: Any, pool: Pool) -> None:
        super().__init__()
        self.network = network
        is_map = network.pretrained_cfg.get("pool_size") and getattr(network, "output_fmt", "NCHW") == "NCHW"
        self.pool = pool.make() if is_map else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network.forward_features(images)
        return self.pool(features) if self.pool else self.network.forward_head(features, pre_logits=True)


def _timm_backbone(name: str, weights: str, pool: Pool) -> Backbone:
    import timm

    pretrained = timm.get_pretrained_cfg(name)
    if weights == "default" and not pretrained.has_weights:
        raise FastpetsError(f"weights: timm has no pretrained weights of {name}; give a file, or use weights='none'")
    try:
        file = _cached_or_reachable(pretrained) if weights == "default" else None
        overlay = {"file": file} if file else None  # without asking the hub
        network = timm.create_model(
            name, pretrained=weights == "default", num_classes=0, pretrained_cfg_overlay=overlay
        )
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
    module = _TimmFeatures(network, pool).eval()
    with torch.no_grad():
        num_features = module(torch.zeros(1, *config["input_size"])).flatten(1).shape[1]
    module.train()
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return Backbone(module, network, num_features, names, tuple(config["mean"]), tuple(config["std"]))


def _cached_or_reachable(pretrained: Any) -> str | None:
    """The file of timm's pretrained weights in the hub's cache, or None if it has to be downloaded.

    Raises OSError if it cannot be: the hub's client would repeat its requests for a minute.
    """
    if not pretrained.hf_hub_id:
        if not Path(torch.hub.get_dir(), "checkpoints", Path(pretrained.url).name).exists():
            check_connection(pretrained.url)
        return None
    import huggingface_hub

    repository, _, revision = pretrained.hf_hub_id.partition("@")
    for name in (pretrained.hf_hub_filename, "model.safetensors", "pytorch_model.bin"):
        file = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None) if name else None
        if isinstance(file, str):
            return file
    check_connection(huggingface_hub.constants.ENDPOINT)
    return None


def _load_pretrained(arch: str, backbone: Backbone, path: Path) -> Backbone:
    """Loads a weight file, or the weights of a run, into a backbone, except for its removed modules.

    Returns the backbone, with the normalisation of the run. Raises FastpetsError.
    """
    file = _weight_file(path)
    if path.is_dir():
        backbone, classes, head_name = _like_run(arch, backbone, path / "model.json")
    tensors = read_tensors(file)
    problems = _load(backbone, _named_as_in(backbone.network, tensors, file))
    if problems and (converted := _converted_by_timm(backbone.network, tensors)):
        problems = _load(backbone, converted)
    if problems:
        raise FastpetsError(f"weights: {file}: names that do not fit {arch}: {problems}; expected weights of this arch")
    if path.is_dir():
        head = {name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.")}
        return backbone._replace(run=TrainedHead(head_name, classes, head))
    return backbone


def _like_run(arch: str, backbone: Backbone, description: Path) -> tuple[Backbone, tuple[str, ...], str]:
    """The backbone with the normalisation in a run's model.json, and the classes and the kind of head of the run.

    Raises FastpetsError if its arch is another one.
    """
    try:
        values = json.loads(description.read_text(encoding="utf-8"))
        found, preprocessing = values["arch"], values["preprocessing"]
        mean, std = tuple(preprocessing["mean"]), tuple(preprocessing["std"])
        classes, head_name = tuple(map(str, values["classes"])), values.get("head", "fastai")
    except (OSError, ValueError, TypeError, KeyError) as error:
        text = reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise FastpetsError(f"weights: {description}: {text}, expected a weight file or a run folder") from None
    if found != arch:
        raise FastpetsError(f"weights: {description.parent}: a run with arch={found!r}, expected {arch}")
    return backbone._replace(mean=mean, std=std), classes, head_name


def _named_as_in(network: nn.Module, tensors: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """The tensors under the prefix under which most names are the network's, without the prefix.

    Prefixes are those of dicts (`state_dict.`), wrappers (`module.`) and models around the network (`backbone.`).
    Names with the numbers of the network's children instead of their names count, too: fastai's bodies have these.
    Of several equally complete sets it takes an average (`ema`), as timm does, else the one with the shortest prefix,
    and warns.
    """
    name_of = {name: name for name in network.state_dict()}
    children = [name for name, _ in network.named_children()]
    for name in list(name_of):
        child, _, rest = name.partition(".")
        if child in children:
            name_of.setdefault(f"{children.index(child)}.{rest}", name)
    tensors = {re.sub(DENSENET_LAYER, r"\1\2", name): value for name, value in tensors.items()}
    num_known: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in name_of:
                num_known["".join(f"{part}." for part in parts[:start])] += 1
    if not num_known:
        return tensors
    best, *others = sorted(num_known, key=lambda prefix: (-num_known[prefix], "ema" not in prefix, len(prefix)))
    equal = [prefix for prefix in others if num_known[prefix] == num_known[best]]
    if equal and num_known[best] >= len(list(network.parameters())):
        warn(f"weights: {file}: loads {best}*, not {first_few([f'{prefix}*' for prefix in equal])}")
    below = {name.removeprefix(best): value for name, value in tensors.items() if name.startswith(best)}
    return {name_of.get(name, name): value for name, value in below.items()}


def _load(backbone: Backbone, state: dict[str, torch.Tensor]) -> str:
    """Loads a state, except for the removed modules. Returns what does not fit, with the first names of each kind."""
    removed = tuple(f"{name}." for name in backbone.removed)
    state = {name: value for name, value in state.items() if not name.startswith(removed)}
    own = backbone.network.state_dict()
    wrong = [name for name, value in state.items() if name in own and value.shape != own[name].shape]
    shapes = [f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}" for name in wrong]
    fitting = {name: value for name, value in state.items() if name not in wrong}
    missing, unknown = backbone.network.load_state_dict(fitting, strict=False)
    # torch's first versions had no such counters; they have no effect unless momentum is None.
    missing = [name for name in missing if name not in wrong and not name.endswith(".num_batches_tracked")]
    kinds = {"of another shape": shapes, "missing": missing, "unknown": unknown}
    return "; ".join(f"{len(found)} {kind}: {first_few(found)}" for kind, found in kinds.items() if found)


def _converted_by_timm(network: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """Tensors with other names, such as those of a model's authors, as timm converts them; None if it cannot."""
    module: Any = sys.modules[type(network).__module__]
    wrapper = os.path.commonprefix(list(tensors)).rpartition(".")[0]  # noqa: RUF071
    try:
        unwrapped = {name.removeprefix(f"{wrapper}."): value for name, value in tensors.items()}
        return module.checkpoint_filter_fn(unwrapped, network)
    except Exception:  # the model has no converter, or one that expects other names
        return None

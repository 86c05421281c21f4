"""The model: a pretrained backbone of torchvision or timm, fastai's head, and its layers in groups."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torchvision
from torch import nn

from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from fastpets.errors import FastpetsError
from fastpets.utils.randomness import seeded

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader

NORM_LAYERS = (
    *(nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)
HIDDEN_FEATURES = 512


class ConcatPool(nn.Module):
    """The largest and the mean value of each channel: (B, F, H, W) to (B, 2F, 1, 1)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([features.amax((2, 3), keepdim=True), features.mean((2, 3), keepdim=True)], dim=1)


class Classifier(nn.Module):
    """images (B, 3, S, S), normalised by `mean` and `std`, to logits (B, C): a backbone and a new head."""

    def __init__(self, backbone: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head(num_features, num_classes)
        self.num_classes = num_classes
        self.pretrained = False
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images).flatten(1))

    def check(self, loader: "Loader", *, trains: bool = False) -> None:
        """Raises FastpetsError for a loader whose batches this model cannot be trained on, or validated."""
        if loader.preprocessing.output != "float":
            raise FastpetsError('the loader gives uint8 pixels, expected normalised images; leave out output="uint8"')
        if self.pretrained and (loader.preprocessing.mean, loader.preprocessing.std) != (self.mean, self.std):
            raise FastpetsError(
                f"the loader normalises by mean {loader.preprocessing.mean} and std {loader.preprocessing.std}, but the weights were trained with "
                f"others; make the loaders with mean={self.mean}, std={self.std}"
            )
        if len(loader.dataset.labels) and loader.dataset.labels.min() < 0:
            raise FastpetsError("the loader's images have no labels, expected one each; see label_from")
        if trains and has_batch_norm(self) and min(loader.batch_size, len(loader.sampler)) == 1:
            raise FastpetsError("training batches of one image, expected two or more: batch norm cannot train on one")

    def layer_groups(self) -> list[list[nn.Module]]:
        """The modules in two groups, backbone and head; a ResNet's backbone in two, cut before layer 3."""
        layers = dict(self.backbone.named_children())
        if not {"layer1", "layer2", "layer3", "layer4"} <= set(layers):
            return [[self.backbone], [self.head]]
        late = [layers.pop("layer3"), layers.pop("layer4")]
        return [list(layers.values()), late, [self.head]]


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a batch of one image has no variance to normalise by."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())


def head(num_features: int, num_classes: int) -> nn.Sequential:
    """fastai's head: two linear layers, each behind batch norm and dropout, from (B, F) to (B, C)."""
    layers = nn.Sequential(
        nn.BatchNorm1d(num_features),
        nn.Dropout(0.25),
        nn.Linear(num_features, HIDDEN_FEATURES, bias=False),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(HIDDEN_FEATURES),
        nn.Dropout(0.5),
        nn.Linear(HIDDEN_FEATURES, num_classes, bias=False),
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm1d):
            nn.init.constant_(layer.bias, 1e-3)
    return layers


def create_model(arch: str, num_classes: int, weights: str | Path = "default", *, seed: int = 0) -> Classifier:
    """A classifier on the backbone `arch`, any of torchvision's classification models or "timm/NAME".

    `weights`: "default" (the library's best for ImageNet, downloaded once), "none", or a safetensors or pth file with
    the library's parameter names. What is random about it depends on `seed` alone. Raises FastpetsError if weights
    cannot be had or do not fit.
    """
    source = str(weights)
    with seeded(seed):
        if arch.startswith("timm/"):
            backbone = _timm_backbone(arch.removeprefix("timm/"), source)
        else:
            backbone = _torchvision_backbone(arch, source)
        if source not in ("default", "none"):
            _load_weights(backbone, Path(source))
        model = Classifier(backbone.module, backbone.num_features, num_classes)
    model.mean, model.std, model.pretrained = backbone.mean, backbone.std, source != "none"
    return model


class _Backbone(NamedTuple):
    """A module from images to pooled features, and what is to be known of it."""

    module: nn.Module
    network: nn.Module  # the library's own, under whose parameter names weights are stored
    num_features: int
    not_loaded: tuple[str, ...]  # modules that weights may have and the network no longer has
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def _torchvision_backbone(arch: str, source: str) -> _Backbone:
    if arch not in torchvision.models.list_models(module=torchvision.models):
        raise FastpetsError(f"--arch {arch}: not one of torchvision's classification models, nor timm/NAME")
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if source == "default":
        weights = torchvision.models.get_model_weights(arch).DEFAULT
        mean, std = tuple(weights.transforms().mean), tuple(weights.transforms().std)
        try:
            network = torchvision.models.get_model(arch, weights=weights)
        except (OSError, RuntimeError) as error:  # no network, or a check sum that is wrong
            place = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
            raise FastpetsError(
                f"--weights default: {weights.url} cannot be downloaded ({error}); put it at {place} by hand, "
                "or give --weights FILE or --weights none"
            ) from None
    else:
        network = torchvision.models.get_model(arch, weights=None)
    auxiliary = tuple(name for name in ("aux1", "aux2", "AuxLogits") if hasattr(network, name))
    for name in auxiliary:  # GoogLeNet's and Inception's second losses
        setattr(network, name, None)
        network.aux_logits = False
    classifier, num_features = _remove_classifier(network)
    return _Backbone(network, network, num_features, (classifier, *auxiliary), mean, std)


def _remove_classifier(network: Any) -> tuple[str, int]:
    """Takes a torchvision network's classifier out: its name, and the number of features that now come out.

    Where it was linear behind a mean over the whole map, the pool becomes fastai's pair of maximum and mean.
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
    """A timm network up to its features, pooled: (B, F), or (B, 2F, 1, 1) of a map that fastai's pair is taken of."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        is_map = network.pretrained_cfg.get("pool_size") and getattr(network, "output_fmt", "NCHW") == "NCHW"
        self.pool = ConcatPool() if is_map else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network.forward_features(images)
        return self.pool(features) if self.pool else self.network.forward_head(features, pre_logits=True)


def _timm_backbone(name: str, source: str) -> _Backbone:
    try:
        import timm
    except ImportError:
        raise FastpetsError(f"--arch timm/{name}: timm is not installed; pip install 'fastpets[timm]'") from None
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:3])
        raise FastpetsError(f"--arch timm/{name}: timm has no such model" + (f"; it has {similar}" if similar else ""))
    try:
        network = timm.create_model(name, pretrained=source == "default", num_classes=0)
    except Exception as error:  # the hub's client raises what its transport does
        address = f"https://huggingface.co/{timm.get_pretrained_cfg(name).hf_hub_id}"
        raise FastpetsError(
            f"--weights default: {address} cannot be downloaded ({type(error).__name__}); fetch its model.safetensors "
            "by hand and give it as --weights FILE, or give --weights none"
        ) from None
    config = network.pretrained_cfg
    module = _TimmFeatures(network).eval()
    with torch.no_grad():
        num_features = module(torch.zeros(1, *config["input_size"])).flatten(1).shape[1]
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return _Backbone(module, network, num_features, names, tuple(config["mean"]), tuple(config["std"]))


def _load_weights(backbone: _Backbone, file: Path) -> None:
    """Parameters from a file into a backbone, all but the classifier's, which it lacks."""
    if not file.is_file():
        raise FastpetsError(f"--weights {file}: no such file, expected default, none, or a safetensors or pth file")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers meet any bytes
        raise FastpetsError(f"--weights {file}: not readable as weights ({type(error).__name__}: {error})") from None
    passed_over = tuple(f"{name}." for name in backbone.not_loaded)
    state = {name: value for name, value in state.items() if not name.startswith(passed_over)}
    try:
        missing, unexpected = backbone.network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise FastpetsError(f"--weights {file}: {str(error).splitlines()[-1].strip()}") from None
    if missing or unexpected:
        raise FastpetsError(
            f"--weights {file}: {len(missing)} parameters missing ({', '.join(missing[:3])}) and {len(unexpected)} "
            f"unknown ({', '.join(unexpected[:3])}); is it of the same --arch?"
        )

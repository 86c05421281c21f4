"""The classifier: a backbone, fastai's head, and their layers in groups that train at different rates."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from fastpets.models.backbones import create_backbone

# Lazy norm layers become one of these classes in their first forward pass.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORM_LAYERS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
HIDDEN_FEATURES = 512


class Classifier(nn.Module):
    """Maps images (B, 3, S, S) to logits (B, C): a backbone with pooled features, then a new head.

    Attributes:
        num_classes: C.
        pretrained: whether the backbone has trained weights, so that freezing it makes sense.
        mean, std: normalisation per channel that these weights expect, for values from 0 to 1.
    """

    def __init__(self, backbone: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = make_head(num_features, num_classes)
        self.num_classes = num_classes
        self.pretrained = False
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images).flatten(1))

    def layer_groups(self) -> list[list[nn.Module]]:
        """All layers, from input to output, as two groups: backbone and head.

        torchvision's ResNets have three: their backbone is split before `layer3`, as fastai splits it.
        """
        layers = dict(self.backbone.named_children())
        if not {"layer1", "layer2", "layer3", "layer4"} <= set(layers):
            return [[self.backbone], [self.head]]
        late = [layers.pop("layer3"), layers.pop("layer4")]
        return [list(layers.values()), late, [self.head]]


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model has batch norm layers, which cannot train on a batch of one image: it has no variance."""
    return any(isinstance(layer, BATCH_NORMS) for layer in model.modules())


def make_head(num_features: int, num_classes: int) -> nn.Sequential:
    """fastai's head, (B, F) to (B, C): two linear layers, each after batch norm and dropout."""
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
    """Builds a classifier on a backbone of torchvision or timm. Raises FastpetsError for weights that do not load.

    Args:
        arch: any of torchvision's classification models, or "timm/NAME".
        num_classes: number of logits.
        weights: of the backbone: "default", the library's default for ImageNet, downloaded once; "none"; a run folder;
            or a safetensors or pth file: one of the library's, of fastai's, or a checkpoint of a training script. The
            head is always new.
        seed: of all randomly initialised parameters; the caller's random state stays as it is.
    """
    with _seeded(seed):
        backbone = create_backbone(arch, str(weights))
        model = Classifier(backbone.module, backbone.num_features, num_classes)
    model.mean, model.std, model.pretrained = backbone.mean, backbone.std, str(weights) != "none"
    return model


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the CPU generator on entry and restores the caller's state on exit."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield

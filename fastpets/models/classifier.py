"""The classifier: a backbone, fastai's head, and their layers in groups that train at different rates."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from fastpets.errors import FastpetsError, first_few, one_line
from fastpets.models.backbones import TrainedHead, create_backbone
from fastpets.models.weights import short_reason
from fastpets.utils.validation import HeadName, check_choice

# Lazy norm layers become one of these classes in their first forward pass.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORM_LAYERS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# Modules of timm, which may not be installed, all of whose classes are norm layers, such as RmsNorm.
TIMM_NORMS = tuple(f"timm.layers.{name}" for name in ("norm", "norm_act", "evo_norm", "filter_response_norm"))
HIDDEN_FEATURES = 512


class Classifier(nn.Module):
    """Maps images (B, 3, S, S) to logits (B, C): a backbone with pooled features, then a new head.

    Attributes:
        num_classes: C.
        classes: their names, if known: given to create_model, or those of the Learner that trained it; else None.
        arch: the name by which create_model made it, or "".
        head_name: the kind of its head.
        weights: those of the backbone, as given to create_model, or "".
        pretrained: whether the backbone has trained weights, so that freezing it makes sense.
        mean, std: normalisation per channel that these weights expect, for values from 0 to 1.
    """

    def __init__(self, backbone: nn.Module, num_features: int, num_classes: int, head: HeadName = "fastai") -> None:
        super().__init__()
        self.backbone, self.head_name = backbone, head
        self.head = make_head(num_features, num_classes, head)
        self.num_classes = num_classes
        self.classes: tuple[str, ...] | None = None
        self.pretrained = False
        self.arch = self.weights = ""
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


def is_norm(layer: nn.Module) -> bool:
    """Whether a layer is a norm layer, of torch or timm."""
    return isinstance(layer, NORM_LAYERS) or any(base.__module__ in TIMM_NORMS for base in type(layer).__mro__)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model has batch norm layers, which cannot train on a batch of one image: it has no variance."""
    return any(isinstance(layer, BATCH_NORMS) for layer in model.modules())


def make_head(num_features: int, num_classes: int, name: HeadName = "fastai") -> nn.Sequential:
    """A head, (B, F) to (B, C): fastai's two linear layers, each after batch norm and dropout, or a single one."""
    check_choice("head", name, HeadName)
    if name == "linear":
        return nn.Sequential(nn.Linear(num_features, num_classes))
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


def create_model(
    arch: str,
    num_classes: int,
    weights: str | Path = "default",
    *,
    classes: Sequence[str] | None = None,
    head: HeadName = "fastai",
    seed: int = 0,
) -> Classifier:
    """Builds a classifier on a backbone of torchvision or timm. Raises FastpetsError for weights that do not load.

    Args:
        arch: any of torchvision's classification models, or "timm/NAME".
        num_classes: number of logits.
        weights: of the backbone: "default", the library's default for ImageNet, downloaded once; "none"; a run folder;
            or a safetensors or pth file: one of the library's, of fastai's, or a checkpoint of a training script. The
            head is new, except for a run with the same `classes`. With a run, a printed line says which.
        classes: names of the logits, in any order: those of a run's head are moved to the class of the same name.
        head: fastai's head, on the maximum and the mean of each feature map, or a "linear" layer on the mean.
        seed: of all randomly initialised parameters; the caller's random state stays as it is.
    """
    with _seeded(seed):
        backbone = create_backbone(arch, str(weights), head)
        model = Classifier(backbone.module, backbone.num_features, num_classes, head)
    if backbone.run is not None:
        print(f"weights: {weights}: {_take_head(model, backbone.run, classes)}", flush=True)
    model.mean, model.std, model.pretrained = backbone.mean, backbone.std, str(weights) != "none"
    model.arch, model.weights, model.classes = arch, str(weights), None if classes is None else tuple(classes)
    return model


def _take_head(model: Classifier, run: TrainedHead, classes: Sequence[str] | None) -> str:
    """Loads the head of a run if the model has the same classes, in any order.

    Returns a message: whether the head was kept, and why.
    """
    if classes is None:
        return "the head is new, since no classes are given to compare"
    if run.name != model.head_name:
        return f"the head is new, since the run's is {run.name}, not {model.head_name}"
    missing = [repr(name) for name in run.classes if name not in classes]
    new = [repr(name) for name in classes if name not in run.classes]
    if missing or new:
        found = [
            f"{len(names)} {kind} ({first_few(names)})" for kind, names in (("gone", missing), ("new", new)) if names
        ]
        return one_line(f"the head is new, since the classes differ from the run's: {', '.join(found)}")
    *_, last = model.head.named_children()
    order = [run.classes.index(name) for name in classes]
    tensors = {name: value[order] if name.startswith(f"{last[0]}.") else value for name, value in run.tensors.items()}
    try:
        model.head.load_state_dict(tensors)
    except RuntimeError as error:
        raise FastpetsError(f"weights: the head of the run does not fit: {short_reason(error)}") from None
    return f"the head is kept, since the {len(run.classes)} classes are the same"


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the CPU generator on entry and restores the caller's state on exit."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield

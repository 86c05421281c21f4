"""A small model, for tests of what does not depend on the architecture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from fastpets.models.backbones import ConcatPool
from fastpets.models.classifier import Classifier

RESNET18, RESNET34 = (2, 2, 2, 2), (3, 4, 6, 3)  # numbers of blocks


class _Narrow(ResNet):
    """torchvision's ResNet with an eighth of the channels after its first layer."""

    def _make_layer(self, block: Any, planes: int, *arguments: Any, **settings: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, *arguments, **settings)


def small_resnet(num_classes: int = 2, seed: int = 0, blocks: Sequence[int] = RESNET18) -> Classifier:
    """A classifier with the layers of create_model("resnet18", num_classes, "none", seed=seed), which are narrower.

    It has 1/45 of the parameters, and its training steps on small images take a tenth of the time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Narrow(BasicBlock, list(blocks))
        network.avgpool, network.fc = ConcatPool(), nn.Identity()
        return Classifier(network, 2 * 512 // 8, num_classes)

"""Mixup and CutMix: torchvision's, on whole batches."""

from collections.abc import Callable
from typing import Any

from torchvision.transforms import v2

from fastpets.utils.validation import Mix


def make_mix(mix: Mix, num_classes: int) -> Callable[..., Any] | None:
    """What mixes images (B, 3, H, W) and labels (B,) with each other, into labels (B, C), or None.

    "both" is one of the two, picked anew for each batch. The shares are evenly distributed for CutMix (S. Yun et al.,
    ICCV 2019) and by Beta(0.2, 0.2) for mixup (H. Zhang et al., ICLR 2018), as their authors train on ImageNet.
    """
    if mix == "none":
        return None
    mixup, cutmix = v2.MixUp(alpha=0.2, num_classes=num_classes), v2.CutMix(alpha=1.0, num_classes=num_classes)
    return {"mixup": mixup, "cutmix": cutmix, "both": v2.RandomChoice([mixup, cutmix])}[mix]

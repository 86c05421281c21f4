"""Mixup and CutMix on whole batches, by torchvision."""

from collections.abc import Callable
from typing import Any

from torchvision.transforms import v2

from fastpets.utils.validation import Mix, check_choice


def make_mix(mix: Mix, num_classes: int) -> Callable[..., Any] | None:
    """Returns a transform from images (B, 3, H, W) and labels (B,) to mixed images and labels (B, C), or None.

    `mix` is "mixup", "cutmix", "none", or "both", which picks one of the two at random for each batch. The mixing
    ratios have the distributions with which the authors train on ImageNet: Beta(0.2, 0.2) for mixup (H. Zhang et al.,
    ICLR 2018), uniform for CutMix (S. Yun et al., ICCV 2019). Raises InvalidArgumentError for another string.
    """
    check_choice("mix", mix, Mix)
    if mix == "none":
        return None
    mixup, cutmix = v2.MixUp(alpha=0.2, num_classes=num_classes), v2.CutMix(alpha=1.0, num_classes=num_classes)
    return {"mixup": mixup, "cutmix": cutmix, "both": v2.RandomChoice([mixup, cutmix])}[mix]

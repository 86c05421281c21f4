"""Grad-CAM (R. Selvaraju et al., ICCV 2017): which places of an image speak for a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from fastpets.errors import FastpetsError
from fastpets.loading.batch import Batch
from fastpets.loading.display import in_place, to_pixels, usable_batches
from fastpets.loading.loader import Loader

OPACITY = 0.5  # of the colours over an image, at most


def grad_cam(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What speaks for the class `labels` (B,) in each place of the images (B, 3, H, W): (B, h, w), 0 to 1.

    The places are those of the last feature map of several pixels. `model`, in evaluation mode, maps images to logits
    (B, C). Raises FastpetsError for a model that computes no such map from which everything later is convolved or
    pooled, such as a transformer.
    """
    layer = _last_feature_map(model, images[:1])
    features: list[torch.Tensor] = []

    def leave_inference(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        # Only what follows needs gradients. The clone may be changed in place by the layer after it.
        features.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return features[-1].clone()

    hook = layer.register_forward_hook(leave_inference)
    try:
        with torch.no_grad():
            logits = model(images)
            chosen = logits.gather(1, labels[:, None]).sum()
            (gradients,) = torch.autograd.grad(chosen, features[-1], allow_unused=True)
    finally:
        hook.remove()
    if gradients is None:
        raise FastpetsError("Grad-CAM: the logits do not depend on the last feature map")
    maps = (gradients.mean((2, 3), keepdim=True) * features[-1].detach()).sum(1).relu().float()
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)


def overlays(model: nn.Module, loader: Loader, ids: np.ndarray, labels: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the images `ids` (M,) with what speaks for the classes `labels` (M,) in colour, each (H, W, 3) uint8."""
    from matplotlib import colormaps

    def coloured(batch: Batch) -> np.ndarray:
        classes = torch.from_numpy(labels[batch.ids]).to(batch.images.device)
        maps, size = grad_cam(model, batch.images.float(), classes), batch.images.shape[2:]
        large = nn.functional.interpolate(maps[:, None], list(size), mode="bilinear", align_corners=False)[:, 0]
        heat, pixels = large.cpu().numpy(), to_pixels(batch.images, loader.preprocessing)
        colours, opacity = 255 * colormaps["inferno"](heat)[..., :3], OPACITY * (0.3 + 0.7 * heat[..., None])
        return ((1 - opacity) * pixels + opacity * colours).round().astype(np.uint8)

    found = ((batch.ids, coloured(batch)) for batch in usable_batches(loader, ids))
    return in_place(found, len(ids), loader.preprocessing.size)


@torch.no_grad()
def _last_feature_map(model: nn.Module, image: torch.Tensor) -> nn.Module:
    """The last layer whose output has several pixels. Raises FastpetsError if later layers mix its pixels."""
    found: list[tuple[nn.Module, torch.Tensor]] = []
    is_mixed = False

    def look(layer: nn.Module, _: Any, output: Any) -> None:
        nonlocal is_mixed
        if not isinstance(output, torch.Tensor):
            return
        if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            found.append((layer, output))
            is_mixed = False
        elif output.ndim == 3 and next(layer.parameters(), None) is not None:
            is_mixed = True  # the tokens of a transformer

    hooks = [layer.register_forward_hook(look) for layer in model.modules()]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not found or is_mixed or found[-1][1].shape[1] < found[-1][1].shape[3]:  # or channels last
        raise FastpetsError("Grad-CAM needs a convolutional network, whose last feature map has several pixels")
    return found[-1][0]

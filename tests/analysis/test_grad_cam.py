"""Grad-CAM, compared with captum's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastpets.analysis import report
from fastpets.analysis.grad_cam import grad_cam, overlays
from fastpets.analysis.interpretation import Interpretation
from fastpets.errors import FastpetsError
from fastpets.models.classifier import create_model


@pytest.mark.parametrize("arch", ["resnet18", "timm/efficientnet_lite0"])
def test_maps_are_captums(arch: str) -> None:
    attr = pytest.importorskip("captum.attr")
    model = create_model(arch, 5, "none").eval()
    images, labels = torch.randn(3, 3, 96, 96), torch.tensor([0, 4, 2])
    last = model.backbone.layer4 if arch == "resnet18" else model.backbone.network.bn2
    expected = attr.LayerGradCam(model, last).attribute(images, target=labels, relu_attributions=True)[:, 0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = grad_cam(model, images, labels)
    assert found.shape == (3, 3, 3)
    highest = expected.amax((1, 2), keepdim=True)
    assert torch.allclose(found * highest, expected.detach(), atol=1e-5 * highest.max().item())
    assert found.min() >= 0
    assert found.max() <= 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(model(images), model(images))


def test_a_transformer_is_refused() -> None:
    model = create_model("timm/vit_tiny_patch16_224", 2, "none").eval()
    with pytest.raises(FastpetsError, match="needs a convolutional network"):
        grad_cam(model, torch.randn(1, 3, 224, 224), torch.tensor([1]))


def test_the_worst_mistakes_of_a_report_show_what_speaks_for_the_prediction(trained_run: Path) -> None:
    found = Interpretation.from_run(trained_run, device="cpu")
    ids = found.mistaken_ids()
    pixels = list(found.pixels(ids))
    shown = list(overlays(found.model, found.loader, ids, found.predicted[np.searchsorted(found.ids, ids)]))
    assert len(shown) == len(pixels) > 0
    for plain, heat in zip(pixels, shown, strict=True):
        assert heat.shape == plain.shape
        assert heat.dtype == np.uint8
        assert not np.array_equal(heat, plain)
    assert len(report._heats(found)) == min(len(ids), report.NUM_EXPLAINED)
    assert '"heats": ["data:image' in (trained_run / "report.html").read_text()

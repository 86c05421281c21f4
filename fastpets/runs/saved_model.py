"""A trained model out of its run folder, and images as it wants to see them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastpets.errors import FastpetsError
from fastpets.loading.loader import Loader
from fastpets.models.classifier import Classifier, create_model
from fastpets.models.weights import load_weights


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A model in evaluation on `device`, the names of its classes, and `seeing`: a Loader's arguments for it."""

    model: Classifier
    classes: tuple[str, ...]
    seeing: dict[str, Any]
    device: torch.device

    def loader(self, source: Any, **more: Any) -> Loader:
        """A loader that sees images as the run's validation did; without labels, unless `source` has them."""
        settings: dict[str, Any] = {"label_from": "none", "device": self.device} | self.seeing | more
        return Loader(source, **settings)

    @torch.inference_mode()
    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C) float32 for images as its loader gives them."""
        return self.model(images).float().softmax(1)


def load_run(run: Path, device: torch.device) -> SavedModel:
    """The model that a run left. Raises FastpetsError if there is none."""
    file = run / "model.json"
    try:
        described = json.loads(file.read_text())
        arch, classes = described.pop("arch"), tuple(described.pop("classes"))
    except (OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FastpetsError(f"{file}: {reason}, expected what a training run leaves in its folder") from None
    model = create_model(arch, len(classes), "none")
    load_weights(model, run / "model.safetensors")
    described["size"] = tuple(described["size"])
    return SavedModel(model.to(device).to(memory_format=torch.channels_last).eval(), classes, described, device)

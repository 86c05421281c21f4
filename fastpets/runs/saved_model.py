"""A trained model in a run folder: its weights, its classes and its preprocessing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastpets.augment.preprocessing import Preprocessing
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.loading.device import resolve_device
from fastpets.loading.loader import Loader
from fastpets.models.classifier import Classifier, create_model
from fastpets.models.weights import load_weights, save_weights
from fastpets.utils.atomic import write_atomically


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained model, ready to predict.

    Attributes:
        model: the model, float32, in evaluation mode.
        classes: names of the C classes.
        preprocessing: preprocessing of the validation images, which all images for this model need.
        device: device of the model.
    """

    model: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    device: torch.device

    def loader(self, source: Any, **arguments: Any) -> Loader:
        """A Loader of `source` with this model's preprocessing and device.

        It does not label the images of a folder. Labels are those of the same names in `classes`. `arguments` are
        further arguments of the Loader, or other values of these. Raises FastpetsError for images of other classes.
        """
        settings = {"label_from": "none", "device": self.device, **self.preprocessing.to_dict(), **arguments}
        return Loader(source, **settings).with_classes(self.classes)

    @torch.inference_mode()
    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, C) float32 of a batch from `loader`."""
        return self.model(images).float().softmax(1)


def save_model(
    folder: Path, model: nn.Module, *, arch: str, classes: tuple[str, ...], preprocessing: Preprocessing
) -> None:
    """Writes model.safetensors and model.json, from which `load_run` builds the model again."""
    save_weights(model, folder / "model.safetensors")
    description = {"arch": arch, "classes": list(classes), "preprocessing": preprocessing.to_dict()}
    text = json.dumps(description, indent=2) + "\n"
    write_atomically(folder / "model.json", lambda staging: staging.write_text(text, encoding="utf-8"))


def load_run(folder: str | Path, device: str | torch.device = "auto") -> SavedModel:
    """Loads the trained model of a run folder. Raises FastpetsError if there is none."""
    file = Path(folder) / "model.json"
    resolved_device = resolve_device(device)
    arch, classes, preprocessing = _read_description(file)
    try:
        model = create_model(arch, len(classes), "none")
    except InvalidArgumentError as error:  # an unknown architecture
        raise FastpetsError(f"{file}: {error}") from None
    load_weights(model, file.with_name("model.safetensors"))
    model.pretrained, model.mean, model.std = True, preprocessing.mean, preprocessing.std
    model = model.to(resolved_device).to(memory_format=torch.channels_last).eval()
    return SavedModel(model, classes, preprocessing, resolved_device)


def _read_description(file: Path) -> tuple[str, tuple[str, ...], Preprocessing]:
    """The architecture, the classes and the preprocessing in a model.json. Raises FastpetsError."""
    reason: object
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        arch, classes = description["arch"], description["classes"]
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        if not isinstance(arch, str):
            raise ValueError(f"arch is {arch!r}, not a name")
        is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if not is_list or not classes or len(set(classes)) < len(classes):
            raise ValueError("classes is not a list of different names")
        return arch, tuple(classes), preprocessing
    except OSError as error:
        reason = error.strerror
    except KeyError as error:
        reason = f"{error} is missing"
    except (ValueError, TypeError, OverflowError, RecursionError, FastpetsError) as error:
        reason = error
    raise FastpetsError(f"{file}: {reason}, expected the description of a trained model")

"""One of the processes of tests/training/test_distributed.py: trains a few epochs and writes its results as JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torchmetrics
from torch import nn

import fastpets
from fastpets.models.classifier import Classifier, create_model
from fastpets.training import distributed
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase


def num_images(probabilities: torch.Tensor, labels: torch.Tensor) -> int:
    """A metric: the number of images that are given to it."""
    return len(labels) if len(labels) == len(probabilities) else -1


METRICS = {
    "top5": "top5",
    "auroc": torchmetrics.AUROC(task="multiclass", num_classes=2, thresholds=20),
    "images": num_images,
    "confidence": lambda probabilities, labels: probabilities.max(1).values.double().mean(),
}


def smooth_model() -> Classifier:
    """A model without batch norm and dropout, whose results depend on which process has which images."""
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.GELU(), nn.AdaptiveAvgPool2d(1)), 8, 2)
    model.head = nn.Sequential(nn.Linear(8, 2))
    model.pretrained = True  # so that freezing has an effect
    return model


class WithUnused(nn.Module):
    """A backbone with a layer that its features do not use, as some of timm's have."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8)), nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.used(images).mean((2, 3))


def make_model(name: str) -> Classifier:
    if name == "smooth":
        return smooth_model()
    if name == "unused":
        return Classifier(WithUnused(), 8, 2)
    return create_model(name, 2, "none")


def train(
    folder: str, model: str, device: str, batch_size: int, accumulate: int = 1, drop_last: bool = True
) -> dict[str, Any]:
    """Trains two phases, the first of them frozen, and runs the learning rate finder."""
    torch.backends.cudnn.allow_tf32 = False  # 10 bits of precision would hide a difference
    loaders = fastpets.loaders(folder, size=32, batch_size=batch_size, device=device, drop_last=drop_last)
    options = TrainingOptions(metrics=METRICS, accumulate=accumulate)
    learner = Learner(*loaders, make_model(model), options, print_epochs=False)
    phases = [Phase(name="a", epochs=1, lr=1e-2, frozen_to=-1), Phase(name="b", epochs=2, lr=1e-2, frozen_to=0)]
    learner.fit(phases)
    return {
        "losses": learner.recorder.losses,
        "smoothed": learner.recorder.smoothed_loss(),
        "valid": [[result.valid_loss, result.error_rate] for result in learner.history],
        "metrics": [list(result.metrics.values()) for result in learner.history],
        "parameters": [p.double().sum().item() for p in learner.model.parameters()],
        "exact": [p.view(torch.int32).long().sum().item() for p in learner.model.parameters()],
        "suggested": learner.lr_find(num_steps=40).rates.tolist(),
    }


if __name__ == "__main__":
    folder, out, name, device, *numbers = sys.argv[1:]
    device = distributed.local_device(device)
    distributed.start(device)
    found = train(folder, name, device, *map(int, numbers))
    Path(out, f"{distributed.rank()}.json").write_text(json.dumps(found))
    distributed.stop()

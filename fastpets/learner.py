"""The learner: fastai's training of a model on a loader, validated on another, in phases of one cycle each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from fastpets.console import EpochTable, track
from fastpets.errors import FastpetsError
from fastpets.model import NORM_LAYERS, Classifier
from fastpets.schedule import Rate, group_rates, one_cycle

if TYPE_CHECKING:
    from fastpets.loader import Loader

LOSS_SMOOTHING = 0.98


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One epoch in numbers. `images_per_sec` counts training pictures, `seconds` the validation as well."""

    phase: str
    epoch: int
    train_loss: float
    valid_loss: float
    error_rate: float
    seconds: float
    images_per_sec: float


class SmoothedLoss:
    """The training loss as fastai shows it: an average over a phase's steps, each weighing 0.98 of the next."""

    def __init__(self, device: torch.device) -> None:
        self.average, self.num_steps = torch.zeros((), device=device), 0

    def update(self, loss: torch.Tensor) -> None:
        self.average = torch.lerp(loss.detach(), self.average, LOSS_SMOOTHING)
        self.num_steps += 1

    def value(self) -> float:
        """The average, freed of its start from 0."""
        return self.average.item() / (1 - LOSS_SMOOTHING**self.num_steps)


class Learner:
    """Trains `model` on batches (images, labels) of `train` and validates it on `valid`, on `train.device`.

    `amp_dtype` is the precision of autocast, None for full precision; float16 brings a gradient scaler with it.
    `on_epoch_end` is called with each epoch's result, by default to print it. `history` keeps the results. Raises
    FastpetsError if the loaders normalise otherwise than pretrained weights expect.
    """

    def __init__(
        self,
        train: Loader,
        valid: Loader,
        model: Classifier,
        *,
        amp_dtype: torch.dtype | None = None,
        weight_decay: float = 0.01,
        on_epoch_end: Callable[[EpochResult], None] | None = None,
    ) -> None:
        for loader in (train, valid):
            if loader.output != "float":
                raise FastpetsError(
                    'the loader gives uint8 pixels, expected normalised images; leave out output="uint8"'
                )
            if model.pretrained and (loader.mean, loader.std) != (model.mean, model.std):
                raise FastpetsError(
                    f"the loader normalises by mean {loader.mean} and std {loader.std}, but the weights were "
                    f"trained with others; make the loaders with mean={model.mean}, std={model.std}"
                )
            if len(loader.items.labels) and loader.items.labels.min() < 0:
                raise FastpetsError("the loader's pictures have no labels, expected one each; see label_from")
        self.train, self.valid = train, valid
        self.has_batch_norm = any(isinstance(layer, BatchNorm) for layer in model.modules())
        if self.has_batch_norm and min(train.batch_size, len(train.sampler)) == 1:
            raise FastpetsError("training batches of one picture, expected two or more: batch norm cannot train on one")
        self.device = train.device
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.amp_dtype, self.weight_decay = amp_dtype, weight_decay
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp_dtype is torch.float16)
        self.on_epoch_end = on_epoch_end or EpochTable()
        self.history: list[EpochResult] = []
        self.unfreeze()

    def freeze(self) -> None:
        """Trains the head alone, and the norm layers of the whole model, from here on.

        A model that is not pretrained has nothing to keep and is left to train as a whole.
        """
        self._train_backbone(not self.model.pretrained)

    def unfreeze(self) -> None:
        """Trains all layers from here on."""
        self._train_backbone(True)

    def fit_one_cycle(
        self,
        epochs: int,
        lr_max: Rate,
        *,
        pct_start: float = 0.25,
        div: float = 25.0,
        phase: str = "one cycle",
    ) -> None:
        """Trains for `epochs`, the rate rising to `lr_max` during `pct_start` of the steps and falling after it."""
        if epochs == 0:
            return
        rates = group_rates(lr_max, 1 + max(group["layer_group"] for group in self.optimizer.param_groups))
        rates = [rates[group["layer_group"]] for group in self.optimizer.param_groups]
        scheduler = one_cycle(self.optimizer, rates, epochs * len(self.train), pct_start=pct_start, div=div)
        smoothed = SmoothedLoss(self.device)
        for epoch in range(epochs):
            started = time.perf_counter()
            num_images = self._train_epoch(scheduler, smoothed, f"{phase} {epoch + 1}/{epochs}")
            train_loss = smoothed.value()  # waits for the device
            train_s = time.perf_counter() - started
            valid_loss, error_rate = self.validate()
            result = EpochResult(
                phase=phase,
                epoch=epoch,
                train_loss=train_loss,
                valid_loss=valid_loss,
                error_rate=error_rate,
                seconds=time.perf_counter() - started,
                images_per_sec=num_images / train_s,
            )
            self.history.append(result)
            self.on_epoch_end(result)

    def fine_tune(self, epochs: int, base_lr: float = 2e-3, freeze_epochs: int = 1) -> None:
        """The head first, then all layers at lower rates, the lower the earlier: fastai's recipe for transfer."""
        self.freeze()
        self.fit_one_cycle(freeze_epochs, slice(base_lr), pct_start=0.99, phase="frozen")
        self.unfreeze()
        rates = slice(base_lr / 2 / 100, base_lr / 2)
        self.fit_one_cycle(epochs, rates, pct_start=0.3, div=5.0, phase="unfrozen")

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """The mean loss and the error rate over the validation items."""
        self.model.eval()
        loss = MeanMetric().to(self.device)
        accuracy = MulticlassAccuracy(num_classes=self.model.num_classes, average="micro").to(self.device)
        for images, labels in track(self.valid, "validating", len(self.valid)):
            logits = self._logits(images)
            loss.update(cross_entropy(logits, labels), weight=len(labels))
            accuracy.update(logits, labels)
        return loss.compute().item(), 1 - accuracy.compute().item()

    def _train_epoch(self, scheduler: LRScheduler, smoothed: SmoothedLoss, description: str) -> int:
        """One pass over the training loader; returns how many pictures there were."""
        self.model.train()
        num_images = 0
        for images, labels in track(self.train, description, len(self.train)):
            if len(labels) == 1 and self.has_batch_norm:
                warnings.warn("a batch of one picture is passed over: batch norm cannot train on it", stacklevel=4)
                continue
            loss, stepped = self.training_step(images, labels)
            if stepped:
                scheduler.step()
            smoothed.update(loss)
            num_images += len(labels)
        return num_images

    def training_step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """The batch's loss before one step of the optimizer, and whether that was taken; the scaler may skip it."""
        loss = cross_entropy(self._logits(images), labels)
        return loss, self._step(loss)

    def _step(self, loss: torch.Tensor) -> bool:
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C) float32, so that the loss is computed in full precision whatever the model's is."""
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            return self.model(images).float()

    def _train_backbone(self, trains: bool) -> None:
        """Freezes or unfreezes the layers before the head, their norm layers excepted; the optimizer starts anew."""
        for group in self.model.layer_groups()[:-1]:
            for layer in _holders(group):
                for parameter in layer.parameters(recurse=False):
                    parameter.requires_grad_(trains or isinstance(layer, NORM_LAYERS))
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.model.layer_groups(), self.weight_decay),
            betas=(0.95, 0.99),
            eps=1e-5,
            fused=True,
        )


def _holders(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that hold parameters of their own."""
    return [layer for module in modules for layer in module.modules() if list(layer.parameters(recurse=False))]


def _parameter_groups(layer_groups: list[list[nn.Module]], weight_decay: float) -> list[dict]:
    """The optimizer's groups: those parameters of each layer group that decay, then its norms and biases, which do not.

    Each names its layer group, counted from 0, by which rates are given out.
    """
    groups: list[dict] = []
    for number, modules in enumerate(layer_groups):
        decaying: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for layer in _holders(modules):
            for name, parameter in layer.named_parameters(recurse=False):
                no_decay = isinstance(layer, NORM_LAYERS) or name.endswith("bias")
                (others if no_decay else decaying).append(parameter)
        for parameters, decay in ((decaying, weight_decay), (others, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "layer_group": number})
    return groups

"""The train_step: a model with its optimizer, and what one batch does to them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fastpets.errors import FastpetsError
from fastpets.models.classifier import Classifier
from fastpets.training import distributed, parameter_groups
from fastpets.training.options import TrainingOptions


class TrainStep:
    """Takes a model's training steps on `device`, as the options says: precision, loss, mixing, clipping, averaging."""

    def __init__(self, model: Classifier, options: TrainingOptions, device: torch.device) -> None:
        self.model, self.options, self.device = model.to(device).to(memory_format=torch.channels_last), options, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.amp_dtype is torch.float16)
        self.loss = nn.CrossEntropyLoss(options.class_weights, label_smoothing=options.label_smoothing).to(device)
        self.ema: AveragedModel | None = None
        if options.ema_decay is not None:
            self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay), use_buffers=True)
        self.freeze_to(0)

    def freeze_to(self, n: int) -> None:
        """Trains the layer groups from the `n`-th on, or the last -n; the optimizer starts anew.

        A model that is not pretrained has nothing to keep and is left to train as a whole.
        """
        self.frozen_to = n if self.model.pretrained else 0
        parameter_groups.freeze(self.model, self.frozen_to, self.options.bn)
        self.optimizer = parameter_groups.adamw(self.model, self.options.weight_decay)
        self.trained_model: nn.Module = self.model  # lets go of what averaged the gradients of other layers
        compiled: Any = torch.compile(self.model) if self.options.compile else self.model
        self.trained_model = distributed.averaging_gradients(compiled, self.device)

    def train_mode(self) -> None:
        """Readies the model for training steps."""
        parameter_groups.train_mode(self.model, self.frozen_to, self.options.bn)
        self.optimizer.zero_grad()

    def training_step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The batch's loss before one step of the optimizer."""
        loss = self.backward(images, labels)
        self.step()
        return loss

    def backward(self, images: torch.Tensor, labels: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
        """The loss of a batch, whose gradients, times `weight`, are added to what is there."""
        if self.options.mix is not None:
            images, labels = self.options.mix(images, labels)
        loss = self.loss(self.logits(images, self.trained_model), labels)
        self.scaler.scale(loss if weight == 1 else loss * weight).backward()
        return loss.detach()

    def step(self) -> None:
        """One step of the optimizer, in which nothing moves if float16 could not hold the gradients.

        Such a step counts, as fastai's do: not to count it, each one would have to wait for the GPU to say.
        """
        if self.options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def logits(self, images: torch.Tensor, model: nn.Module) -> torch.Tensor:
        """(B, C) float32, so that the loss is computed in full precision whatever the model's is."""
        if self.options.amp_dtype is None:
            return model(images).float()
        with torch.autocast(self.device.type, self.options.amp_dtype):
            return model(images).float()

    @property
    def evaluated_model(self) -> Classifier:
        """What is validated and kept: the moving average, if there is one, else the model."""
        return self.model if self.ema is None else cast(Classifier, self.ema.module)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for `load_state_dict`."""
        holders = ("model", "optimizer", "scaler", *(["ema"] if self.ema else []))
        return {"frozen_to": self.frozen_to} | {name: getattr(self, name).state_dict() for name in holders}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`. Raises FastpetsError if it is of another model."""
        try:
            self.model.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
        except (RuntimeError, KeyError) as error:
            raise FastpetsError(f"a state of another model: {' '.join(str(error).split())[:300]}") from None
        self.freeze_to(state["frozen_to"])
        parameter_groups.load_state(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

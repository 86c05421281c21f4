"""A training step: loss, mixed precision, gradients, optimizer, and averaged weights."""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fastpets.data.dataset import NO_LABEL
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.models.classifier import Classifier
from fastpets.models.weights import check_fit, short_reason
from fastpets.training import distributed, parameter_groups
from fastpets.training.losses import make_loss
from fastpets.training.mixing import make_mix
from fastpets.training.options import AmpDtype, TrainingOptions
from fastpets.training.parameter_groups import Splitter
from fastpets.utils.system import cpu_has_bfloat16
from fastpets.utils.validation import FrozenNorms


class TrainStep:
    """Takes training steps with a model on `device`, which maps images to logits (B, `num_classes`).

    `splitter` gives the layer groups, by default those of a Classifier, or one group for another module.

    Attributes:
        options: with `class_weights` as a tensor (C,) or False; a Learner computes them if they are True.
        amp_dtype: precision of autocast, or None for float32 throughout.
        model: the model that trains, on `device`, in channels_last memory format.
        wrapped_model: `model`, compiled if `options.compile` is set, and under torchrun in DistributedDataParallel.
        evaluated_model: the model to validate and save.
        groups: the parameters of each layer group.
        fixed: names of the parameters that were frozen when it was made; they stay frozen.
        loss: of logits (B, C) and labels.
        frozen_to: the first layer group that trains.
        only_overflows: whether the optimizer is new and has skipped all steps so far, since they overflowed in float16.
    """

    def __init__(
        self,
        model: nn.Module,
        options: TrainingOptions,
        device: torch.device,
        *,
        num_classes: int | None = None,
        splitter: Splitter | None = None,
    ) -> None:
        num_classes = num_classes or cast(Classifier, model).num_classes
        self.loss = make_loss(options, num_classes, device)
        self.model, self.options, self.device = model.to(device).to(memory_format=torch.channels_last), options, device
        self.amp_dtype = resolve_amp_dtype(device, options.amp_dtype) if options.amp else None
        if options.amp and self.amp_dtype is None:
            warnings.warn(
                "amp: this processor has no bfloat16 instructions and would be slower with it; training in float32",
                stacklevel=2,
            )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_dtype is torch.float16)
        self.mix = options.mix if callable(options.mix) else make_mix(options.mix, num_classes)
        self.ema: MovingAverage | None = None
        if options.ema is not None:
            self.ema = MovingAverage(model, options.ema)
        self.groups = parameter_groups.layer_groups(model, splitter)
        self.fixed = parameter_groups.frozen_by_user(model)
        self.freeze_to(0)

    def freeze_to(self, n: int) -> None:
        """Freezes the layer groups before the `n`-th, which is counted from the end if negative; resets the optimizer.

        A Classifier without pretrained weights stays trainable as a whole. Raises InvalidArgumentError.
        """
        parameter_groups.first_trained(self.groups, n)  # raises before anything has changed
        n = n if self._is_pretrained else 0
        parameter_groups.freeze(self.model, self.groups, n, self._bn, self.fixed)
        self.frozen_to = n
        self.optimizer = parameter_groups.adamw(self.model, self.groups, self.options.weight_decay)
        self.only_overflows = self.scaler.is_enabled()
        # DistributedDataParallel averages the gradients that are trainable when it is made. Free the old wrapper first.
        self.wrapped_model: nn.Module = self.model
        compiled: Any = torch.compile(self.model) if self.options.compile else self.model
        self.wrapped_model = distributed.data_parallel(compiled, self.device)
        self._has_exchanged = False  # since the wrapper was made
        self._keeps_gradients = False  # this process has gradients that the others do not have

    @property
    def _is_pretrained(self) -> bool:
        """Whether freezing makes sense: not for a Classifier without pretrained weights."""
        return getattr(self.model, "pretrained", True)

    @property
    def _bn(self) -> FrozenNorms:
        return self.options.bn if self._is_pretrained else "train"

    def train_mode(self) -> None:
        """Sets the model to training mode and clears its gradients."""
        parameter_groups.train_mode(self.model, self.groups, self.frozen_to, self._bn)
        self.optimizer.zero_grad()

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Trains on one batch: backward and optimizer_step. Returns the loss before the step."""
        loss = self.backward(images, labels)
        self.optimizer_step()
        return loss

    def backward(
        self, images: torch.Tensor, labels: torch.Tensor, weight: float = 1.0, *, is_last: bool = True
    ) -> torch.Tensor:
        """Adds a batch's gradients, multiplied by `weight`, and returns its loss.

        `is_last`: whether an optimizer step follows. Only then do several processes average the gradients so far.
        """
        if self.mix is not None:
            images, labels = self.mix(images, labels)
        # A static graph is recorded in the wrapper's first pass, which must exchange gradients.
        exchanges = is_last or not self._has_exchanged
        with contextlib.nullcontext() if exchanges else distributed.without_exchange(self.wrapped_model):
            loss = self.loss(self.logits(images, self.wrapped_model), labels)
            self.scaler.scale(loss if weight == 1 else loss * weight).backward()
        self._has_exchanged, self._keeps_gradients = True, not exchanges
        return loss.detach()

    def optimizer_step(self) -> bool:
        """Updates the parameters by the gradients, and clears these. Skips the update if they overflowed in float16.

        Returns whether the learning rate schedule counts the step. Gradient scaling starts with a scale that is too
        large, and would skip the first steps of a short warm-up: they do not count until one is taken. Later skipped
        steps count, as in fastai. Only the GPU knows which are skipped, and waiting for it in each step would be slow.
        """
        if self._keeps_gradients:  # the batch that was to be the last could not be trained on
            distributed.average_gradients(self.model)
            self._keeps_gradients = False
        if self.options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        scale = self.scaler.get_scale() if self.only_overflows else 0.0  # waits for the GPU
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.only_overflows = self.only_overflows and self.scaler.get_scale() < scale
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return not self.only_overflows

    def logits(self, images: torch.Tensor, model: nn.Module) -> torch.Tensor:
        """Logits (B, C) of `model` under autocast, converted to float32, so that the loss has full precision."""
        if self.amp_dtype is None:
            return _as_logits(model(images))
        with torch.autocast(self.device.type, self.amp_dtype):
            return _as_logits(model(images))

    @property
    def evaluated_model(self) -> nn.Module:
        """The model to validate and save: the moving average if there is one, else the model itself."""
        return self.model if self.ema is None else self.ema.module

    def state_dict(self) -> dict[str, Any]:
        """The state of model, optimizer, gradient scaler and moving average."""
        names = ("model", "optimizer", "scaler", *(["ema"] if self.ema else []))
        plain = {"frozen_to": self.frozen_to, "only_overflows": self.only_overflows}
        return plain | {name: getattr(self, name).state_dict() for name in names}

    def check_state(self, state: dict[str, Any]) -> None:
        """Raises FastpetsError if a `state_dict` is of another model or of other layer groups."""
        if ("ema" in state) != (self.ema is not None):
            found, here = ("with", "without") if "ema" in state else ("without", "with")
            raise FastpetsError(f"ema: a state {found} averaged weights, but the options are {here}; set ema alike")
        try:
            check_fit(self.model, state["model"])
            if self.ema is not None:
                check_fit(self.ema, state["ema"])
        except RuntimeError as error:
            raise FastpetsError(f"a state of another model: {short_reason(error)}") from None
        found, here = (_group_sizes(optimizer) for optimizer in (state["optimizer"], self.optimizer.state_dict()))
        if found != here:
            raise FastpetsError(
                f"a state of a model with layer groups of {found} parameters, but here they are {here}; make the "
                "learner with the same splitter"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a copy of a `state_dict`. Raises FastpetsError as `check_state`, before anything has changed."""
        self.check_state(state)
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.freeze_to(state["frozen_to"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it keeps the tensors that it is given
        self.only_overflows = state["only_overflows"]
        if state["scaler"]:  # empty if it was saved without float16
            self.scaler.load_state_dict(state["scaler"])


def resolve_amp_dtype(device: torch.device, amp_dtype: AmpDtype) -> torch.dtype | None:
    """The dtype of autocast on `device`, or None for a CPU without bfloat16 instructions: float32 is faster there.

    "auto" is bfloat16 where the hardware has it, else float16 on a GPU and None on a CPU. Raises InvalidArgumentError
    for float16 on a CPU.
    """
    if device.type == "cpu":
        if amp_dtype == "float16":
            raise InvalidArgumentError("amp_dtype: 'float16', but a CPU trains in bfloat16 or float32; expected 'auto'")
        return torch.bfloat16 if amp_dtype == "bfloat16" or cpu_has_bfloat16() else None
    if amp_dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}[amp_dtype]


def inverse_frequencies(labels: np.ndarray, num_classes: int) -> torch.Tensor:
    """Class weights (C,) float32 that are inversely proportional to the classes' numbers of images.

    Their mean over the images is 1. `labels` is (N,); NO_LABEL in it is ignored.
    """
    labels = labels[labels != NO_LABEL]
    counts = torch.bincount(torch.from_numpy(labels), minlength=num_classes)
    return (len(labels) / ((counts > 0).sum() * counts.clamp(min=1))).float()


def _group_sizes(optimizer: dict[str, Any]) -> str:
    """The numbers of parameters with and without weight decay in each layer group, from an optimizer's state."""
    sizes: dict[int, list[str]] = {}
    for group in optimizer["param_groups"]:
        sizes.setdefault(group["layer_group"], []).append(str(len(group["params"])))
    return ", ".join("+".join(parts) for parts in sizes.values())


def _as_logits(output: Any) -> torch.Tensor:
    """A model's output as float32. Raises FastpetsError if it is no tensor."""
    if not isinstance(output, torch.Tensor):
        raise FastpetsError(f"the model gives {type(output).__name__}, expected a tensor, the logits (B, C) of a batch")
    return output.float()


class MovingAverage(AveragedModel):
    """An exponential moving average of a model's parameters and buffers, which starts from the first ones.

    AveragedModel's own update copies its counter to the GPU in each step, and so waits for it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        averaged, current = ([*each.parameters(), *each.buffers()] for each in (self.module, model))
        pairs: dict[torch.dtype, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for pair in zip(averaged, current, strict=True):
            pairs.setdefault(pair[0].dtype, []).append(pair)
        is_first = bool(self.n_averaged == 0)  # on the CPU
        for same_dtype in pairs.values():
            ours, theirs = (list(tensors) for tensors in zip(*same_dtype, strict=True))
            get_ema_multi_avg_fn(0.0 if is_first else self.decay)(ours, theirs, None)
        self.n_averaged += 1

"""The learner: fastai's training of a model on a loader, validated on another, in phases of one cycle each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from fastpets.loading.batch import Batch
from fastpets.models.classifier import Classifier, create_model, has_batch_norm
from fastpets.models.weights import load_weights, save_weights
from fastpets.training import distributed, lr_finder, out_of_memory, plots
from fastpets.training.history import EpochResult, Progress
from fastpets.training.input_timer import InputTimer
from fastpets.training.metrics import compute, make_metrics
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase, Rate, fine_tune_phases
from fastpets.training.progressive import progressive_size
from fastpets.training.recorder import Recorder
from fastpets.training.schedule import group_rates, one_cycle
from fastpets.training.train_step import TrainStep
from fastpets.utils.console import EpochTable, track
from fastpets.utils.randomness import RandomState

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from fastpets.loading.loader import Loader

STATEFUL = ("train_step", "random", "train", "recorder")


class Learner:
    """Trains a model on the batches of `train` and validates it on `valid`, on `train.device`.

    `arch` is a Classifier, or a name for create_model. `on_epoch_end` is called with each epoch's result, by default to
    print it, and `on_step_end` behind each step. `history` keeps the results, `recorder` the loss of every batch. The
    caller's random state stays as it is. Raises FastpetsError for loaders that the model cannot be trained on.
    """

    def __init__(
        self,
        train: Loader,
        valid: Loader,
        arch: str | Classifier,
        options: TrainingOptions | None = None,
        *,
        on_epoch_end: Callable[[EpochResult], None] | None = None,
        on_step_end: Callable[[], None] | None = None,
    ) -> None:
        self.train, self.valid, self.device = train, valid, train.device
        self.options = options or TrainingOptions()
        model = create_model(arch, len(train.classes), seed=self.options.seed) if isinstance(arch, str) else arch
        model.check(train, trains=True)
        model.check(valid)
        self.model, self.train_step = model, TrainStep(model, self.options, self.device)
        self.random = RandomState(self.options.seed + distributed.rank(), self.device)
        self.recorder, self.progress, self.full_size = Recorder(), Progress(), train.preprocessing.size
        self.history: list[EpochResult] = []
        self.rate_curve: lr_finder.RateCurve | None = None  # of the latest search
        self.on_epoch_end, self.on_step_end = on_epoch_end or EpochTable(), on_step_end or (lambda: None)

    def freeze(self) -> None:
        """Trains the head alone, and the norm layers of the whole model, from here on."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Trains all layers from here on."""
        self.freeze_to(0)

    def freeze_to(self, n: int) -> None:
        """Trains the layer groups from the `n`-th on, or the last -n; the optimizer starts anew."""
        self.train_step.freeze_to(n)

    def fit_one_cycle(self, epochs: int, lr_max: Rate, *, pct_start: float = 0.25, div: float = 25.0) -> None:
        """Trains for `epochs`, the rate rising to `lr_max` during `pct_start` of the steps and falling after it."""
        self.fit([Phase(name="one cycle", epochs=epochs, lr=lr_max, pct_start=pct_start, div=div)])

    def fine_tune(self, epochs: int, base_lr: Rate = 2e-3, freeze_epochs: int = 1) -> None:
        """The head first, then all layers at lower rates, the lower the earlier: fastai's options for transfer."""
        self.fit(fine_tune_phases(epochs, base_lr, freeze_epochs))

    def fit(self, phases: Sequence[Phase], *, resume: bool = False) -> None:
        """Trains through all phases, or what a fit that was interrupted, or a loaded state, has left of them."""
        if resume:
            self.train.load_state_dict(self.train.state_dict())  # the rest of the epoch that was left, not a new one
        else:
            self.progress = Progress()
        is_out = False
        try:
            with self.random.in_use():
                for number in range(self.progress.phase, len(phases)):
                    self._fit_phase(number, phases)
        except RuntimeError as error:
            if not (is_out := out_of_memory.is_out_of_memory(error)):
                raise
        if is_out:  # said here, where the failed step's tensors are gone with its frames
            raise out_of_memory.advice(self)
        self.progress = Progress()

    def _fit_phase(self, number: int, phases: Sequence[Phase]) -> None:
        phase, num_groups = phases[number], len(self.model.layer_groups())
        if self.progress.rates is None:
            if phase.frozen_to is not None:
                self.freeze_to(phase.frozen_to)
            lr = self.lr_find().valley if phase.lr == "auto" else phase.lr
            self.progress = Progress(phase=number, rates=group_rates(lr, num_groups))
            self.recorder.begin_phase()
        rates = self.progress.rates or []
        rates = [rates[group["layer_group"]] for group in self.train_step.optimizer.param_groups]
        num_steps = phase.epochs * -(-len(self.train) // self.options.accumulate)
        shape = {"pct_start": phase.pct_start, "div": phase.div}
        scheduler = one_cycle(self.train_step.optimizer, rates, num_steps, first_step=self.progress.num_steps, **shape)
        while self.progress.epoch < phase.epochs:
            if self.options.smallest_size is not None:
                done = sum(earlier.epochs for earlier in phases[:number]) + self.progress.epoch
                share = done / max(1, sum(each.epochs for each in phases) - 1)
                self.train.resize(progressive_size(self.options.smallest_size, self.full_size, share))
            self._fit_epoch(phase, scheduler)
        self.progress = Progress(phase=number + 1)

    def _fit_epoch(self, phase: Phase, scheduler: LRScheduler) -> None:
        now, started, timer, num_images = self.progress, time.perf_counter(), InputTimer(self.device), 0
        if not now.is_trained:
            num_images = self._train_epoch(scheduler, timer, f"{phase.name} {now.epoch + 1}/{phase.epochs}")
        train_loss = self.recorder.end_epoch()
        waited_s, train_s = timer.elapsed()
        now.is_trained = True
        values = self.validate()
        result = EpochResult(
            phase=phase.name,
            epoch=now.epoch,
            batches=len(self.recorder.losses),
            train_loss=train_loss,
            valid_loss=values.pop("valid_loss"),
            error_rate=values.pop("error_rate"),
            metrics=values,
            seconds=time.perf_counter() - started,
            images_per_sec=num_images * distributed.world_size() / train_s,
            input_share=waited_s / train_s,
        )
        self.progress = Progress(phase=now.phase, rates=now.rates, epoch=now.epoch + 1, num_steps=now.num_steps)
        self.history.append(result)
        self.on_epoch_end(result)

    def _train_epoch(self, scheduler: LRScheduler, timer: InputTimer, description: str) -> int:
        """One pass over the training loader, or the rest of one; returns how many images there were."""
        now, total, together, num_images, pending = self.progress, len(self.train), self.options.accumulate, 0, False
        self.train_step.train_mode()
        for batch in timer.watch(track(self.train, description, total)):
            if self.can_train_on(batch):
                num_together = min(together, total - now.num_batches // together * together)
                loss = self.train_step.backward(batch.images, batch.labels, 1 / num_together)
                self.recorder.add(loss, self.train_step.optimizer.param_groups[-1]["lr"], batch.ids)
                num_images, pending = num_images + len(batch.labels), True
            now.num_batches += 1
            if now.num_batches % together == 0 or now.num_batches == total:
                if pending:
                    self.train_step.step()
                    scheduler.step()
                    now.num_steps += 1
                pending = False
                self.on_step_end()
        return num_images

    def can_train_on(self, batch: Batch) -> bool:
        """Whether a batch has what batch norm needs; warns if not."""
        if len(batch.labels) > 1 or not has_batch_norm(self.model):
            return True
        warnings.warn("a batch of one image is passed over: batch norm cannot train on it", stacklevel=2)
        return False

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """`valid_loss`, the mean over the validation images of all processes, `error_rate`, and other metrics."""
        model = self.train_step.evaluated_model.eval()
        distributed.from_first(model.buffers())
        loss = MeanMetric().to(self.device)
        metrics = make_metrics(self.options.metrics, self.model.num_classes).to(self.device)
        for images, labels in track(self.valid, "validating", len(self.valid)):
            logits = self.train_step.logits(images, model)
            loss.update(cross_entropy(logits, labels), weight=len(labels))
            metrics.update(logits, labels)
            if distributed.world_size() == 1:  # else some have more batches than others
                self.on_step_end()
        return {"valid_loss": loss.compute().item(), **compute(metrics, self.train.classes)}

    @torch.inference_mode()
    def get_preds(self, batches: Iterable[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities (N, C) and labels (N,) on the CPU, of the validation images or of (images, labels)."""
        model = self.train_step.evaluated_model.eval()
        found = []
        for images, labels in self.valid if batches is None else batches:
            logits = self.train_step.logits(images.to(self.device), model)
            found.append((logits.softmax(1).cpu(), labels.cpu()))
        probabilities, labels = zip(*found, strict=True)
        return torch.cat(probabilities), torch.cat(labels)

    def predict(self, path: str | Path) -> tuple[str, int, torch.Tensor]:
        """An image's class, the label of that, and the probabilities (C,) of all. Raises BadFileError."""
        probabilities = self.get_preds(self.valid.like([path]))[0][0]
        label = int(probabilities.argmax())
        return self.train.classes[label], label, probabilities

    def one_batch(self) -> Batch:
        """The training batch that would come next, and still will."""
        return self.train.peek()

    def lr_find(self, **sweep: Any) -> lr_finder.RateCurve:
        """The loss over a growing learning rate; all is put back as it was. See fastpets.training.lr_finder."""
        self.rate_curve = lr_finder.lr_find(self, **sweep)
        return self.rate_curve

    def plot_loss(self, file: str | Path | None = None) -> None:
        """Draws the training loss of every batch and the validation loss of every epoch; see fastpets.training.plots."""
        plots.plot_loss(self.recorder, self.history, file)

    def save(self, file: str | Path) -> None:
        """Writes the weights that are validated as a safetensors file."""
        save_weights(self.train_step.evaluated_model, Path(file))

    def load(self, file: str | Path) -> None:
        """Takes in weights that were saved. Raises FastpetsError if they are of another model."""
        for model in {self.model, self.train_step.evaluated_model}:
            load_weights(model, Path(file))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened; live tensors, to be copied or saved."""
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        return state | {"progress": asdict(self.progress), "history": [asdict(result) for result in self.history]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same model and data. Raises FastpetsError if they are others."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.progress = Progress(**state["progress"])
        self.history = [EpochResult(**result) for result in state["history"]]

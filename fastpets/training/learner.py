"""The training loop: trains a model on one loader and validates it on another, in phases of one cycle each."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.loading.batch import Batch
from fastpets.models.classifier import Classifier, create_model, has_batch_norm
from fastpets.models.weights import load_weights, save_weights
from fastpets.training import distributed, lr_finder, out_of_memory, plots
from fastpets.training.history import EpochResult, Progress, print_epoch
from fastpets.training.input_timer import InputTimer
from fastpets.training.metrics import compute, make_metrics
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase, Rate, fine_tune_phases
from fastpets.training.random_state import RandomState
from fastpets.training.recorder import Recorder
from fastpets.training.schedule import group_rates, one_cycle, progressive_size
from fastpets.training.train_step import TrainStep, inverse_frequencies
from fastpets.utils.progress import track

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from fastpets.loading.loader import Loader

STATEFUL = ("train_step", "random", "train", "recorder")


class Learner:
    """Trains a model on the batches of `train` and validates it on those of `valid`, on `train.device`.

    Its random numbers depend on `options.seed`; the caller's random state is not touched. Raises FastpetsError for
    loaders that do not fit the model or each other.

    Args:
        train, valid: the loaders.
        arch: a Classifier, or the name of a backbone for create_model.
        options: by default fastai's.
        on_epoch_end: called with the result of each epoch; by default prints it.
        on_step_end: called after each optimizer step and each validation batch. If it raises, `fit` can resume.

    Attributes:
        history: results of all epochs.
        recorder: losses and learning rates of all batches.
        rate_curve: of the latest `lr_find`, or None.
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
        self.options = _with_class_weights(options or TrainingOptions(), train)
        _check_sizes(self.options, train)
        self.model = create_model(arch, len(train.classes), seed=self.options.seed) if isinstance(arch, str) else arch
        check_loaders(self.model, train, valid)
        self.train_step = TrainStep(self.model, self.options, self.device)
        self.random = RandomState(self.options.seed + distributed.rank(), self.device)
        self.recorder, self.progress, self.full_size = Recorder(), Progress(), train.preprocessing.size
        self.history: list[EpochResult] = []
        self.rate_curve: lr_finder.RateCurve | None = None
        self.on_epoch_end, self.on_step_end = on_epoch_end or print_epoch, on_step_end or (lambda: None)

    def freeze(self) -> None:
        """Trains only the head, and norm layers of all groups unless `options.bn` is "eval"."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Trains all layers."""
        self.freeze_to(0)

    def freeze_to(self, n: int) -> None:
        """Trains the layer groups from the `n`-th on, counted from the end if negative, with a new optimizer."""
        self.train_step.freeze_to(n)

    def fit_one_cycle(self, epochs: int, lr_max: Rate, *, pct_start: float = 0.25, div: float = 25.0) -> None:
        """Trains in one cycle: the rate rises to `lr_max` during `pct_start` of the steps, then falls."""
        self.fit([Phase(name="one cycle", epochs=epochs, lr=lr_max, pct_start=pct_start, div=div)])

    def fine_tune(self, epochs: int, base_lr: Rate = 2e-3, freeze_epochs: int = 1) -> None:
        """fastai's schedule for transfer learning: the head first, then all layers, early ones at lower rates."""
        self.fit(fine_tune_phases(epochs, base_lr, freeze_epochs))

    def fit(self, phases: Sequence[Phase], *, resume: bool = False) -> None:
        """Trains through all phases; with `resume`, from where an interrupted fit or a loaded state is.

        Raises FastpetsError if a loss is not finite or a batch does not fit into memory.
        """
        if resume:
            self.train.load_state_dict(self.train.state_dict())  # the next pass goes on in the interrupted epoch
        else:
            self.progress = Progress()
        is_out_of_memory = False
        try:
            with self.random.active():
                for number in range(self.progress.phase, len(phases)):
                    self._fit_phase(number, phases)
        except RuntimeError as error:
            is_out_of_memory = out_of_memory.is_out_of_memory(error)
            if not is_out_of_memory:
                raise
        if is_out_of_memory:  # outside the handler, where the failed step's frames no longer hold its tensors
            seen = self.train.preprocessing
            raise out_of_memory.advice(self.train_step, self.train.batch_size, seen.size, self.train.dtype)
        self.progress = Progress()

    def _fit_phase(self, number: int, phases: Sequence[Phase]) -> None:
        phase = phases[number]
        if self.progress.rates is None:
            self._begin_phase(number, phase)
        scheduler = self._scheduler(phase)
        while self.progress.epoch < phase.epochs:
            if self.options.initial_size is not None:
                done = sum(earlier.epochs for earlier in phases[:number]) + self.progress.epoch
                progress = done / max(1, sum(each.epochs for each in phases) - 1)
                initial = cast(tuple[int, int], self.options.initial_size)
                self.train.resize(progressive_size(initial, self.full_size, progress))
            self._fit_epoch(phase, scheduler)
        self.progress = Progress(phase=number + 1)

    def _begin_phase(self, number: int, phase: Phase) -> None:
        """Freezes layers as the phase says and settles its learning rates."""
        if phase.frozen_to is not None:
            self.freeze_to(phase.frozen_to)
        lr = self.lr_find().valley if phase.lr == "auto" else phase.lr
        self.progress = Progress(phase=number, rates=group_rates(lr, len(self.model.layer_groups())))
        self.recorder.begin_phase()

    def _scheduler(self, phase: Phase) -> LRScheduler:
        """The one-cycle scheduler of a phase, at the optimizer step where the phase is."""
        group_maxima, optimizer = self.progress.rates or [], self.train_step.optimizer
        rates = [group_maxima[group["layer_group"]] for group in optimizer.param_groups]
        num_steps = phase.epochs * -(-len(self.train) // self.options.accumulate)
        first_step = self.progress.num_steps
        return one_cycle(optimizer, rates, num_steps, pct_start=phase.pct_start, div=phase.div, first_step=first_step)

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
        """Trains on an epoch, or on the rest of an interrupted one; returns the number of images."""
        now, total, accumulate = self.progress, len(self.train), self.options.accumulate
        num_images, has_gradients = 0, False
        self.train_step.train_mode()
        for batch in timer.watch(track(self.train, description, total)):
            if self._can_train_on(batch):
                num_accumulated = min(accumulate, total - now.num_batches // accumulate * accumulate)
                loss = self.train_step.backward(batch.images, batch.labels, 1 / num_accumulated)
                self.recorder.add(loss, self.train_step.optimizer.param_groups[-1]["lr"], batch.ids)
                num_images, has_gradients = num_images + len(batch.labels), True
            now.num_batches += 1
            if now.num_batches % accumulate == 0 or now.num_batches == total:
                if has_gradients:
                    self.train_step.step()
                    scheduler.step()
                    now.num_steps += 1
                has_gradients = False
                self.on_step_end()
        return num_images

    def _can_train_on(self, batch: Batch) -> bool:
        """Whether a batch has enough images for batch norm; warns if not."""
        if len(batch.labels) > 1 or not has_batch_norm(self.model):
            return True
        warnings.warn("a batch of one image is skipped: batch norm cannot train on it", stacklevel=2)
        return False

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """`valid_loss`, `error_rate` and the metrics of `options`, over the validation images of all processes."""
        model = self.train_step.evaluated_model.eval()
        distributed.broadcast(model.buffers())
        loss = MeanMetric().to(self.device)
        metrics = make_metrics(self.options.metrics, self.train.classes).to(self.device)
        for images, labels in track(self.valid, "validating", len(self.valid)):
            logits = self.train_step.logits(images, model)
            loss.update(cross_entropy(logits, labels), weight=len(labels))
            metrics.update(logits, labels)
            if distributed.world_size() == 1:  # processes differ in their numbers of batches, and would not agree
                self.on_step_end()
        return {"valid_loss": loss.compute().item(), **compute(metrics)}

    @torch.inference_mode()
    def get_preds(self, batches: Iterable[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities (N, C) and labels (N,) on the CPU, of the validation images or of batches (images, labels)."""
        model = self.train_step.evaluated_model.eval()
        predicted = []
        for images, labels in self.valid if batches is None else batches:
            logits = self.train_step.logits(images.to(self.device), model)
            predicted.append((logits.softmax(1).cpu(), labels.cpu()))
        probabilities, labels = zip(*predicted, strict=True)
        return torch.cat(probabilities), torch.cat(labels)

    def predict(self, path: str | Path) -> tuple[str, int, torch.Tensor]:
        """An image's class, its label, and the probabilities (C,) of all classes. Raises BadFileError."""
        probabilities = self.get_preds(self.valid.like([path]))[0][0]
        label = int(probabilities.argmax())
        return self.train.classes[label], label, probabilities

    def one_batch(self) -> Batch:
        """The next training batch, without advancing the loader."""
        return self.train.peek()

    def lr_find(self, lowest: float = 1e-7, highest: float = 10.0, num_steps: int = 100) -> lr_finder.RateCurve:
        """Runs the learning-rate finder: trains at growing rates, then restores the learner's whole state.

        A training set of fewer batches than `num_steps` is repeated.
        """
        before = copy.deepcopy(self.state_dict())
        try:
            with self.random.active():
                curve = lr_finder.sweep(self.train_step, self._endless_batches(), lowest, highest, num_steps)
        finally:
            self.load_state_dict(before)
        self.rate_curve = curve
        return curve

    def _endless_batches(self) -> Iterator[Batch]:
        return (batch for batch in chain.from_iterable(repeat(self.train)) if self._can_train_on(batch))

    def plot_loss(self, file: str | Path | None = None) -> None:
        """Plots the smoothed training loss and the validation loss, as a PNG file or in pyplot's current figure."""
        plots.plot_loss(self.recorder.smoothed, self.history, file)

    def save(self, file: str | Path) -> None:
        """Writes the weights that are validated as a safetensors file."""
        save_weights(self.train_step.evaluated_model, Path(file))

    def load(self, file: str | Path) -> None:
        """Loads saved weights. Raises FastpetsError if they are another model's."""
        for model in {self.model, self.train_step.evaluated_model}:
            load_weights(model, Path(file))

    def state_dict(self) -> dict[str, Any]:
        """The whole state, from which training resumes as if it had not stopped. Its tensors are not copies."""
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        return state | {"progress": asdict(self.progress), "history": [asdict(result) for result in self.history]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`. Raises FastpetsError if its model or data set differ from this learner's."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.progress = Progress(**state["progress"])
        self.history = [EpochResult(**result) for result in state["history"]]


def check_loaders(model: Classifier, train: Loader, valid: Loader) -> None:
    """Raises FastpetsError if a model cannot train on the batches of `train` or be validated on those of `valid`."""
    for loader in (train, valid):
        seen, labels = loader.preprocessing, loader.dataset.labels
        if seen.output != "float":
            raise FastpetsError("the loader gives uint8 pixels, expected normalised images; leave out output='uint8'")
        if model.pretrained and (seen.mean, seen.std) != (model.mean, model.std):
            raise FastpetsError(
                f"the loader normalises by mean {seen.mean} and std {seen.std}, but the weights were trained with "
                f"others; make the loaders with mean={model.mean}, std={model.std}"
            )
        if len(labels) and labels.min() < 0:
            raise FastpetsError("the loader's images have no labels, expected one each; see label_from")
        if len(labels) and labels.max() >= model.num_classes:
            raise FastpetsError(
                f"the loader has labels up to {labels.max()}, but the model only {model.num_classes} classes; create "
                "it with num_classes=len(train.classes)"
            )
    if train.preprocessing.normalization != valid.preprocessing.normalization:
        raise FastpetsError(
            f"training images are normalised by mean {train.preprocessing.mean} and std {train.preprocessing.std}, "
            f"validation images by {valid.preprocessing.mean} and {valid.preprocessing.std}; expected the same"
        )
    if has_batch_norm(model) and min(train.batch_size, len(train.sampler)) == 1:
        raise FastpetsError("training batches of one image, expected two or more: batch norm cannot train on one")


def _with_class_weights(options: TrainingOptions, train: Loader) -> TrainingOptions:
    """The options, with class weights by the labels of the usable training images if they are True."""
    if options.class_weights is not True:
        return options
    labels = train.dataset.labels[train.headers.usable]
    return replace(options, class_weights=inverse_frequencies(labels, len(train.classes)))


def _check_sizes(options: TrainingOptions, train: Loader) -> None:
    """Raises InvalidArgumentError if training would have to start with images larger than the loader's."""
    initial, final = cast(tuple[int, int] | None, options.initial_size), train.preprocessing.size
    if initial is not None and (initial[0] > final[0] or initial[1] > final[1]):
        raise InvalidArgumentError(
            f"initial_size: {initial[0]} x {initial[1]} px, expected at most the loader's {final[0]} x {final[1]}"
        )

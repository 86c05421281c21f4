"""The training loop: trains a model on one loader and validates it on another, in phases of one cycle each."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fastpets.errors import FastpetsError, InvalidArgumentError, describe_bad_files
from fastpets.loading.batch import Batch
from fastpets.loading.loader import Loader
from fastpets.models.classifier import Classifier
from fastpets.models.weights import load_weights, save_weights
from fastpets.training import checks, distributed, lr_finder, out_of_memory, plots
from fastpets.training.head_fit import check_head, fit_head
from fastpets.training.history import EpochPrinter, EpochResult, History, Progress
from fastpets.training.host_copies import HostCopies
from fastpets.training.input_timer import InputTimer
from fastpets.training.metrics import ValidationMetrics
from fastpets.training.options import TrainingOptions
from fastpets.training.parameter_groups import Splitter
from fastpets.training.phases import Phase, Rate, fine_tune_phases
from fastpets.training.random_state import RandomState
from fastpets.training.recorder import Recorder
from fastpets.training.schedule import group_rates, one_cycle, progressive_size
from fastpets.training.train_step import TrainStep, inverse_frequencies
from fastpets.utils import notebook
from fastpets.utils.progress import track

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

EVENTS = ("on_epoch_end", "on_step_end", "on_validation_batch_end")  # of callbacks
STATEFUL = ("train_step", "random", "recorder")


class Learner:
    """Trains a model on the batches of `train` and validates it on those of `valid`, on `train.device`.

    A pretrained model starts frozen, as by `freeze`. Random numbers depend on `options.seed`; the caller's random state
    is not touched. Raises FastpetsError for loaders that do not fit the model or each other.

    Args:
        train, valid: the loaders. The classes are those of `train`. Labels of all other loaders are matched to them by
            their names: `valid` may lack classes, and a class that only `valid` has is an error. Loaders made without
            mean and std take those of the pretrained weights.
        model: an architecture from which create_model makes a Classifier, a Classifier, or any module that maps images
            (B, 3, H, W) to logits (B, C). A module starts with all layers trainable, but for parameters that are
            frozen already (requires_grad=False): those are never trained.
        weights: of the architecture, as in create_model: "default", "none", a file, or a run folder, whose head is kept
            if its classes are those of `train`.
        splitter: maps the model to its layer groups, from input to output, each a module, a parameter or a list of
            these. Default: those of a Classifier; one group for another module.
        options: default: TrainingOptions(), which has fastai's values.
        callbacks: objects with one or more of the methods `on_epoch_end(learner, result)`, `on_step_end(learner)` and
            `on_validation_batch_end(learner)`, which are called after each epoch, optimizer step and batch of
            validation images. If one raises, `fit` can resume.
        print_epochs: whether the first process prints a line for each epoch, by an EpochPrinter among the callbacks.

    Attributes:
        history: results of all epochs.
        recorder: losses and learning rates of all batches.
        callbacks: those given, after the EpochPrinter; a list, which may be changed.
        rate_curve: of the latest `lr_find`, or None.
        normalization: mean and std by which all its loaders normalise.
    """

    def __init__(
        self,
        train: Loader,
        valid: Loader,
        model: str | nn.Module,
        options: TrainingOptions | None = None,
        *,
        weights: str | Path = "default",
        splitter: Splitter | None = None,
        callbacks: Sequence[Any] = (),
        print_epochs: bool = True,
    ) -> None:
        self.options, self.device = _with_class_weights(options or TrainingOptions(), train), train.device
        self.initial_size = cast(tuple[int, int] | None, self.options.initial_size)
        checks.check_sizes(self.initial_size, train.preprocessing.size)
        self.model = checks.as_model(model, weights, train.classes, self.options.seed)
        for loader in (train, valid):
            checks.follow_model(loader, self.model)
        self.train, self.valid = train, valid.with_classes(train.classes)
        checks.check_loaders(self.model, self.train, self.valid)
        if isinstance(self.model, Classifier):
            self.model.classes = train.classes
        self.normalization = (train.preprocessing.mean, train.preprocessing.std)
        self.random = RandomState(self.options.seed + distributed.rank(), self.device)
        with self.random.active():
            self._make_train_step(splitter)
        self.recorder, self.progress, self.full_size = Recorder(), Progress(), train.preprocessing.size
        self.history = History()
        self.rate_curve: lr_finder.RateCurve | None = None
        _check_callbacks(callbacks)
        printers = [EpochPrinter()] if print_epochs and distributed.rank() == 0 else []
        self.callbacks: list[Any] = [*printers, *callbacks]

    def _make_train_step(self, splitter: Splitter | None) -> None:
        """Builds the train step, after checks of the model's output, the loss and the metrics."""
        num_classes = len(self.train.classes)
        sizes = (self.initial_size, self.train.preprocessing.size, self.valid.preprocessing.size)
        for size in dict.fromkeys(size for size in sizes if size is not None):
            checks.check_module(self.model.to(self.device), size, num_classes, self.device)
        self.train_step = TrainStep(self.model, self.options, self.device, num_classes=num_classes, splitter=splitter)
        labels = self.valid.dataset.labels[self.valid.headers.usable]
        ValidationMetrics(self.options.metrics, self.train.classes, self.device).check(labels)
        if self.pretrained:
            self.freeze()

    @property
    def pretrained(self) -> bool:
        """Whether the model is a Classifier with pretrained weights, which starts frozen."""
        return isinstance(self.model, Classifier) and self.model.pretrained

    def matched(self, loader: Loader) -> Loader:
        """The loader with this learner's labels and normalisation; a copy if it has other classes.

        Loaders that were made without mean and std follow the learner that uses them. Raises FastpetsError for images
        of other classes or of another normalisation, and for batches that are not normalised images (B, 3, H, W).
        """
        checks.check_images(loader)
        checks.follow(loader, self.normalization)
        return loader.with_classes(self.train.classes)

    def __repr__(self) -> str:
        return f"Learner({', '.join(f'{name}: {value}' for name, value in self._description().items())})"

    def _repr_html_(self) -> str:
        return notebook.description("Learner", self._description())

    def _description(self) -> dict[str, Any]:
        num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        num_trained = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        return {
            "model": f"{num_parameters:,} parameters, {num_trained:,} of them trainable",
            "training images": f"{len(self.train.dataset):,}",
            "validation images": f"{len(self.valid.dataset):,}",
            "classes": len(self.train.classes),
            "size": "{1} x {0} px".format(*self.train.preprocessing.size),
            "batch size": self.train.batch_size,
            "device": self.device,
            "trained": self.history,
        }

    def freeze(self) -> None:
        """Freezes all layers but the head. Norm layers keep training if `options.bn` is "train".

        As `freeze_to`, it has no effect on a Classifier without pretrained weights.
        """
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Makes all layers trainable, but for parameters that were frozen when the learner was made."""
        self.freeze_to(0)

    def freeze_to(self, n: int) -> None:
        """Freezes the layer groups before the `n`-th, which is counted from the end if negative; resets the optimizer.

        A Classifier without pretrained weights stays trainable as a whole. Raises InvalidArgumentError.
        """
        self.train_step.freeze_to(n)

    def fit_one_cycle(
        self, epochs: int, lr_max: Rate, *, pct_start: float = Phase.pct_start, div: float = Phase.div
    ) -> None:
        """Trains in one cycle: the rate rises to `lr_max` during `pct_start` of the steps, then falls."""
        self.fit([Phase(name="one cycle", epochs=epochs, lr=lr_max, pct_start=pct_start, div=div)])

    def fine_tune(self, epochs: int, base_lr: Rate = 2e-3, freeze_epochs: int = 1) -> None:
        """fastai's schedule for transfer learning: the head first, then all layers, early ones at lower rates."""
        self.fit(fine_tune_phases(epochs, base_lr, freeze_epochs))

    def fit(self, phases: Sequence[Phase], *, resume: bool = False) -> None:
        """Trains in one phase after another.

        With `resume`, continues the fit that was interrupted, or whose state was loaded; give it the same phases. It
        does nothing if all of them are done. Raises FastpetsError if a loss or a weight is not finite, a batch does not
        fit into memory, or no image of an epoch can be used.
        """
        if resume:
            # By default an iterator starts the next epoch; from a loaded state, it delivers the rest of this one.
            self.train.load_state_dict(self.train.state_dict())
        else:
            self.progress = Progress()
            self._leave_interrupted_epoch()
        self.matched(self.train)
        if any(phase.fits_head for phase in phases):
            check_head(self.model)
        try:
            with self.random.active():
                out_of_memory.guard(lambda: self._fit_phases(phases), self._out_of_memory_error)
        finally:
            for loader in (self.train, self.valid):
                loader.end_prepared()
            if self.initial_size is not None:
                self.train.resize(self.full_size)

    def _leave_interrupted_epoch(self) -> None:
        """Makes the training loader start a whole epoch, even if a state within an epoch was loaded."""
        state = self.train.state_dict()
        if state["delivered"] > 0 and state["epoch"] == self.train.epoch:
            self.train.set_epoch(self.train.epoch + 1)

    def _out_of_memory_error(self) -> FastpetsError:
        return out_of_memory.training_error(self.train_step, self.train, self.valid)

    def _fit_phases(self, phases: Sequence[Phase]) -> None:
        for number in range(self.progress.phase, len(phases)):
            self._fit_phase(number, phases)

    def _fit_phase(self, number: int, phases: Sequence[Phase]) -> None:
        phase = phases[number]
        if self.progress.rates is None:
            self._begin_phase(number, phase)
        scheduler = self._scheduler(phase)
        while self.progress.epoch < phase.epochs:
            if self.initial_size is not None:
                num_done = sum(earlier.epochs for earlier in phases[:number]) + self.progress.epoch
                last = sum(each.epochs for each in phases) - 1
                done = num_done / last if last > 0 else 1.0  # a single epoch has the full size
                self.train.resize(progressive_size(self.initial_size, self.full_size, done))
            self._fit_epoch(phase, scheduler)
        if self.train_step.only_overflows and phase.epochs > 0 and not phase.fits_head:
            raise FastpetsError(
                f"phase {phase.name}: the gradients of all batches overflowed in float16, and no step was taken; use "
                "amp_dtype='bfloat16', or amp=False"
            )
        self.progress = Progress(phase=number + 1)

    def _begin_phase(self, number: int, phase: Phase) -> None:
        """Freezes layer groups and sets the learning rates for a phase."""
        if phase.frozen_to is not None:
            self.freeze_to(phase.frozen_to)
        lr = self.lr_find().valley if phase.lr == "auto" else phase.lr
        self.progress = Progress(phase=number, rates=group_rates(lr, len(self.train_step.groups)))
        self.recorder.begin_phase()

    def _scheduler(self, phase: Phase) -> LRScheduler:
        """The one-cycle scheduler of a phase, which starts after the phase's steps so far."""
        assert self.progress.rates is not None  # set by _begin_phase
        optimizer = self.train_step.optimizer
        rates = [self.progress.rates[group["layer_group"]] for group in optimizer.param_groups]
        num_steps = phase.epochs * -(-len(self.train) // self.options.accumulate)
        first_step = self.progress.num_steps
        return one_cycle(optimizer, rates, num_steps, pct_start=phase.pct_start, div=phase.div, first_step=first_step)

    def _fit_epoch(self, phase: Phase, scheduler: LRScheduler) -> None:
        progress, started = self.progress, time.perf_counter()
        if not progress.is_trained:
            timer = InputTimer(self.device)
            if phase.fits_head:
                num_images = self._fit_head(timer)
            else:
                num_images = self._train_epoch(scheduler, timer, f"{phase.name}, epoch {progress.epoch}")
            self.recorder.end_epoch()
            waited_s, train_s = timer.elapsed()
            progress.images_per_sec = num_images * distributed.world_size() / train_s
            progress.input_share = waited_s / train_s
            checks.check_weights(self.model, len(self.recorder.losses))
            progress.is_trained = True
            self._call_back("on_step_end")
        # Growing images are resized before each epoch; fitting the head takes images in order.
        if progress.epoch + 1 < phase.epochs and self.initial_size is None and not phase.fits_head:
            self.train.prepare()
        values = self.validate()
        checks.check_validation(values["valid_loss"])
        result = EpochResult(
            phase=phase.name,
            epoch=progress.epoch,
            batches=len(self.recorder.losses),
            train_loss=self.recorder.smoothed_loss(),
            valid_loss=values.pop("valid_loss"),
            error_rate=values.pop("error_rate"),
            metrics=values,
            seconds=time.perf_counter() - started,
            images_per_sec=progress.images_per_sec,
            input_share=progress.input_share,
        )
        self.progress = Progress(
            phase=progress.phase, rates=progress.rates, epoch=progress.epoch + 1, num_steps=progress.num_steps
        )
        self.history.append(result)
        self._call_back("on_epoch_end", result)

    def _call_back(self, event: str, *arguments: object) -> None:
        for callback in self.callbacks:
            if (method := getattr(callback, event, None)) is not None:
                method(self, *arguments)

    def _fit_head(self, timer: InputTimer) -> int:
        """Fits a linear head in place of an epoch of training; returns this process's share of the images."""
        images = self.valid.like(self.train.dataset, rank=0, world_size=1)
        loss, ids = fit_head(self.train_step, timer.watch(track(images, "fitting the head", len(images))))
        self.recorder.add(loss, 0.0, ids)
        return len(ids) // distributed.world_size()

    def _train_epoch(self, scheduler: LRScheduler, timer: InputTimer, description: str) -> int:
        """Trains on an epoch, or on the rest of an interrupted one; returns the number of images.

        It calls `on_step_end` after each optimizer step but the last one.
        """
        progress, total, accumulate = self.progress, len(self.train), self.options.accumulate
        num_images, has_gradients, is_whole = 0, False, progress.num_batches == 0

        def optimizer_step() -> None:
            if self.train_step.optimizer_step():
                scheduler.step()
                progress.num_steps += 1

        self.train_step.train_mode()
        for batch in timer.watch(track(self.train, description, total)):
            # The last batch: validation begins beside its step. A copy with other classes is made anew by `validate`.
            if progress.num_batches == total - 1 and (valid := self.matched(self.valid)) is self.valid:
                valid.prepare()
            if checks.can_train_on(self.model, batch):
                num_accumulated = min(accumulate, total - progress.num_batches // accumulate * accumulate)
                is_last = progress.num_batches % accumulate == num_accumulated - 1
                loss = self.train_step.backward(batch.images, batch.labels, 1 / num_accumulated, is_last=is_last)
                self.recorder.add(loss, self.train_step.optimizer.param_groups[-1]["lr"], batch.ids)
                num_images, has_gradients = num_images + len(batch.labels), True
            progress.num_batches += 1
            if progress.num_batches % accumulate == 0 and progress.num_batches < total:
                if has_gradients:
                    optimizer_step()
                has_gradients = False
                self._call_back("on_step_end")
        if has_gradients:  # after the loop, since there are fewer batches if all files of one are bad
            optimizer_step()
        if is_whole and num_images == 0:
            raise checks.nothing_to_train_on(self.train)
        return num_images

    def validate(self, loader: Loader | None = None) -> dict[str, float]:
        """`valid_loss`, `error_rate` and the metrics of `options`, over the validation images of all processes.

        With `loader`, over its images, such as those kept aside for a final evaluation. Raises FastpetsError if none of
        them can be used, if they have no labels or are of other classes, or if they are on another device.
        """
        valid = self.matched(self.valid if loader is None else loader)
        checks.check_labels(valid)
        if valid.device != self.device:
            raise FastpetsError(f"device: {valid.device} of the loader, expected {self.device}, that of the learner")
        return out_of_memory.guard(
            lambda: self._validate(valid), lambda: out_of_memory.validation_error(valid, self.train)
        )

    @torch.inference_mode()
    def _validate(self, valid: Loader) -> dict[str, float]:
        model = self.train_step.evaluated_model.eval()
        distributed.broadcast(model.buffers())
        loss, num_images = torch.zeros((), dtype=torch.float64, device=self.device), 0
        metrics = ValidationMetrics(self.options.metrics, self.train.classes, self.device)
        for images, labels in track(valid, "validating", len(valid)):
            logits = self.train_step.logits(images, model)
            loss += cross_entropy(logits, labels, reduction="sum")
            num_images += len(labels)
            metrics.update(logits, labels)
            self._call_back("on_validation_batch_end")
        totals = torch.tensor([loss.item(), num_images], dtype=torch.float64)
        valid_loss, num_images_per_process = distributed.mean(totals).tolist()
        if num_images_per_process == 0:
            found = f" ({describe_bad_files(valid.bad_files)})" if valid.bad_files else ""
            raise FastpetsError(f"no validation image could be used{found}; expected at least one")
        return {"valid_loss": valid_loss / num_images_per_process, **metrics.values()}

    @torch.inference_mode()
    def get_preds(self, batches: Iterable[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities (N, C) and labels (N,) on the CPU, of this process's validation images.

        With `batches`, a loader or pairs of images and labels, those of their images. For the training loader, these
        are all training images, in order and without augmentation. N is 0 if there are no batches.
        """
        batches = self.valid if batches is None else batches
        if batches is self.train:
            batches = self.valid.like(self.train.dataset)
        if isinstance(batches, Loader):
            batches = self.matched(batches)
        model = self.train_step.evaluated_model.eval()
        probabilities = HostCopies(torch.empty(0, len(self.train.classes)))
        all_labels = HostCopies(torch.empty(0, dtype=torch.int64))
        for images, labels in batches:
            logits = self.train_step.logits(images.to(self.device), model)
            probabilities.append(logits.softmax(1))
            all_labels.append(labels)
        return probabilities.joined(), all_labels.joined()

    def predict(self, path: str | Path) -> tuple[str, int, torch.Tensor]:
        """An image's class, its label, and the probabilities (C,) of all classes. Raises BadFileError."""
        loader = self.valid.like([path], rank=0, world_size=1, on_bad_file="raise")
        probabilities = self.get_preds(loader)[0][0]
        label = int(probabilities.argmax())
        return self.train.classes[label], label, probabilities

    def one_batch(self) -> Batch:
        """The next training batch, without advancing the loader."""
        return self.matched(self.train).peek()

    def lr_find(self, lowest: float = 1e-7, highest: float = 10.0, num_steps: int = 100) -> lr_finder.RateCurve:
        """Runs the learning rate finder: trains at growing rates, then restores the learner's whole state.

        A training set of fewer batches than `num_steps` is repeated. Raises FastpetsError if a batch does not fit into
        memory, or if no image can be used.
        """
        self.matched(self.train)
        before = copy.deepcopy(self.state_dict())
        try:
            with self.random.active():
                curve = out_of_memory.guard(
                    lambda: lr_finder.sweep(self.train_step, self._endless_batches(), lowest, highest, num_steps),
                    self._out_of_memory_error,
                )
        finally:
            self.load_state_dict(before)
        self.rate_curve = curve
        return curve

    def _endless_batches(self) -> Iterator[Batch]:
        while True:
            num_batches = 0
            for batch in self.train:
                if checks.can_train_on(self.model, batch):
                    num_batches += 1
                    yield batch
            if num_batches == 0:
                raise checks.nothing_to_train_on(self.train)

    def plot_loss(self, file: str | Path | None = None) -> None:
        """Plots the smoothed training loss and the validation loss, as a PNG file or in pyplot's current figure."""
        plots.plot_loss(self.recorder.smoothed, self.history, file)

    def save(self, file: str | Path) -> None:
        """Writes the weights, averaged ones if `options.ema` is set, to a safetensors file with the classes' names."""
        save_weights(self.train_step.evaluated_model, Path(file), self.train.classes)

    def load(self, file: str | Path) -> None:
        """Loads saved weights. Raises FastpetsError, and changes nothing, if they are of another model or classes."""
        for model in {self.model, self.train_step.evaluated_model}:
            load_weights(model, Path(file), self.train.classes)

    def export(self, out: str | Path) -> None:
        """Writes a folder with all that a run folder of `fastpets train` has, except checkpoints.

        That is the model, for `fastpets.load`, and its weights; the tables of epochs and batches; the latest curve of
        the learning rate finder; the list of images; and report.html. `fastpets predict`, `export`, `serve`, `report`
        and `suspects`, and `Interpretation.from_run` take such a folder. Raises FastpetsError for a model that
        create_model has not made, or a folder that is not empty.
        """
        from fastpets.analysis.exporting import export

        export(self, Path(out))

    def report(self, out: str | Path) -> None:
        """Writes what `export` writes, but no model: report.html, and the tables that it shows.

        It may be repeated. Raises InvalidArgumentError for a folder with other files.
        """
        from fastpets.analysis.exporting import export

        export(self, Path(out), with_model=False)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, from which training resumes as if it had not stopped. Its tensors are not copies.

        It includes whether the model is pretrained, and the normalisation: a learner with `weights="none"` can load it.
        """
        state = {name: getattr(self, name).state_dict() for name in ("train", *STATEFUL)}
        state |= {"progress": asdict(self.progress), "history": [asdict(result) for result in self.history]}
        state |= {
            "classes": list(self.train.classes),
            "normalization": self.normalization,
            "pretrained": self.pretrained,
        }
        return state | self._step_size()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`.

        Raises FastpetsError if its model, layer groups or data set differ from this learner's, or if it is of an
        unfinished phase with another number of images per optimizer step. The learner then stays as it was.
        """
        checks.check_same_classes(tuple(state.get("classes", self.train.classes)), self.train.classes)
        if state["progress"]["rates"] is not None:
            for name, value in self._step_size().items():
                if state[name] != value:
                    raise FastpetsError(
                        f"{name}: {value}, but the state is of an unfinished phase with {name}={state[name]}; resume "
                        "it with the same"
                    )
        self.train_step.check_state(state["train_step"])
        normalization = state.get("normalization", self.normalization)  # states of earlier versions lack it
        for loader in (self.valid, self.train):
            checks.check_normalization(loader, normalization)
        self.train.load_state_dict(state["train"])  # the last that may refuse its state
        for loader in (self.valid, self.train):
            checks.follow(loader, normalization)
        self.normalization = normalization
        for model in {self.model, self.train_step.evaluated_model}:
            if isinstance(model, Classifier):
                model.mean, model.std = normalization
                model.pretrained = state.get("pretrained", model.pretrained)
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.progress = Progress(**state["progress"])
        self.history = History(EpochResult(**result) for result in state["history"])

    def _step_size(self) -> dict[str, int]:
        """What determines the number of images, over all processes, in an optimizer step."""
        return {
            "batch_size": self.train.batch_size,
            "accumulate": self.options.accumulate,
            "world_size": distributed.world_size(),
        }


def _check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raises InvalidArgumentError for an object without a method that would be called."""
    for callback in callbacks:
        if not any(callable(getattr(callback, event, None)) for event in EVENTS):
            raise InvalidArgumentError(f"callbacks: {callback!r}, expected objects with a method {' or '.join(EVENTS)}")


def _with_class_weights(options: TrainingOptions, train: Loader) -> TrainingOptions:
    """The options, with class weights by the labels of the usable training images if they are True."""
    if options.class_weights is not True:
        return options
    labels = train.dataset.labels[train.headers.usable]
    return replace(options, class_weights=inverse_frequencies(labels, len(train.classes)))

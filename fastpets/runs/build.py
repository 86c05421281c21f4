"""From a configuration to what it names: items, loaders, a model and the learner that joins them, for the commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from fastpets.data.dataset import ImageDataset
from fastpets.data.splits import train_valid_datasets
from fastpets.errors import FastpetsError
from fastpets.loading.loader import Loader
from fastpets.models.classifier import create_model
from fastpets.runs.config import TrainConfig, parse_size
from fastpets.training import distributed
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase, fine_tune_phases, parse_rate, parse_schedule
from fastpets.training.train_step import resolve_amp_dtype
from fastpets.utils.device import resolve_device
from fastpets.utils.system import keep_freed_memory, num_processors


def make_learner(config: TrainConfig) -> Learner:
    """The learner of a run, its loaders and its model; torch is set to as many threads as are wanted."""
    local_device = distributed.local_device(config.device)
    distributed.start(local_device)
    device = resolve_device(local_device)
    torch.set_num_threads(num_threads(config))
    if device.type == "cpu":
        keep_freed_memory()
    amp_dtype = resolve_amp_dtype(device, config.amp_dtype) if config.amp else None
    with distributed.local_first():  # which may download
        train_dataset, valid_dataset = build_datasets(config)
        model = create_model(config.arch, len(train_dataset.classes), config.weights, seed=config.seed)
    # Autocast would convert the images to its type anyway, and half as many bytes travel.
    seen = {"mean": model.mean, "std": model.std, "dtype": amp_dtype or torch.float32}
    train, valid = build_loaders(config, train_dataset, valid_dataset, device=device, **seen)
    return Learner(train, valid, model, build_options(config))


def build_options(config: TrainConfig) -> TrainingOptions:
    """How the learner trains."""
    return TrainingOptions(
        amp=config.amp,
        amp_dtype=config.amp_dtype,
        weight_decay=config.weight_decay,
        bn=config.bn,
        label_smoothing=config.label_smoothing,
        class_weights=config.class_weights,
        mix=config.mix,
        accumulate=config.accumulate,
        clip_norm=config.clip_norm,
        ema=config.ema,
        metrics=config.metrics,
        initial_size=None if config.initial_size is None else parse_size(config.initial_size),
        compile=config.compile,
        seed=config.seed,
    )


def build_phases(config: TrainConfig, pretrained: bool) -> list[Phase]:
    """The phases of training."""
    if config.schedule is not None:
        return parse_schedule(config.schedule)
    lr = parse_rate(config.lr)
    if pretrained and lr != "auto":  # as it is once with_rate_found has answered it
        return fine_tune_phases(config.epochs, lr, config.freeze_epochs)
    return [Phase(name="one cycle", epochs=config.epochs, lr=lr)]


def with_rate_found(config: TrainConfig, learner: Learner) -> TrainConfig:
    """The configuration, with the rate finder's suggestion for the head, which trains first, in place of --lr auto."""
    if config.lr != "auto" or config.schedule is not None:
        return config
    learner.freeze()
    lr = learner.lr_find().valley
    learner.unfreeze()
    print(f"the rate finder suggests {lr:.2e}")
    return dataclasses.replace(config, lr=repr(lr))


def build_loaders(
    config: TrainConfig, train_dataset: ImageDataset, valid_dataset: ImageDataset, **more: Any
) -> tuple[Loader, Loader]:
    """The loaders for training and validation, with what the model decides in `more`."""
    settings: dict[str, Any] = {
        "batch_size": config.batch_size,
        "size": config.final_size,
        "presize": config.presize,
        "presize_method": config.presize_method,
        "borders": config.borders,
        "supersample": config.supersample,
        "cache": config.cache,
        "seed": config.seed,
        "num_workers": num_threads(config),
        "on_bad_file": config.on_bad_file,
        "max_pixels": config.max_pixels,
        **more,
    }
    sampler = "balanced" if config.balanced else None
    train = Loader(train_dataset, augment=config.augment, shuffle=True, sampler=sampler, drop_last=True, **settings)
    return train, Loader(valid_dataset, **settings)


def build_datasets(config: TrainConfig) -> tuple[ImageDataset, ImageDataset]:
    """Training and validation items of the data set that the configuration names."""
    source: str | Path | None
    if config.data == "sample":
        from fastpets.data.sample import sample_folder

        source = sample_folder()
    elif config.data is not None:
        source = config.data
    elif config.labels is not None:
        source = None
    else:
        from fastpets.data.pets import pets_folder

        source = pets_folder()
    train_dataset, valid_dataset = train_valid_datasets(
        source,
        label_from=config.label_from,
        label_pattern=config.label_pattern,
        labels=config.labels,
        split_seed=config.split_seed,
        on_bad_file=config.on_bad_file,
        max_pixels=config.max_pixels,
        num_workers=num_threads(config),
    )
    if len(train_dataset.classes) < 2:
        raise FastpetsError(
            f"classes: {', '.join(train_dataset.classes) or 'none'}; expected at least two; see --label-from, "
            "--label-pattern and --labels"
        )
    return train_dataset, valid_dataset


def num_threads(config: TrainConfig) -> int:
    """Threads that the configuration allows, by default the processors that this process may use."""
    return config.threads or num_processors()

"""From a configuration to what it names: items, loaders, a model and the learner that joins them, for the commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from fastpets.data.dataset import NO_LABEL, ImageDataset
from fastpets.data.splits import train_valid_datasets
from fastpets.errors import FastpetsError
from fastpets.loading.loader import Loader
from fastpets.loading.settings import resolve_device
from fastpets.models.classifier import create_model
from fastpets.runs.config import TrainConfig
from fastpets.training import distributed
from fastpets.training.learner import Learner
from fastpets.training.mixing import make_mix
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase, fine_tune_phases, parse_rate, parse_schedule
from fastpets.utils.system import cpu_has_bfloat16, keep_freed_memory, num_processors


def make_learner(config: TrainConfig) -> Learner:
    """The learner of a run, its loaders and its model; torch is set to as many threads as are wanted."""
    device = resolve_device(distributed.start(config.device))
    torch.set_num_threads(num_threads(config))
    if device.type == "cpu":
        keep_freed_memory()
    amp_dtype = autocast_dtype(device, config.amp_dtype) if config.amp else None
    with distributed.first_alone():  # which may download
        train_dataset, valid_dataset = build_datasets(config)
        model = create_model(config.arch, len(train_dataset.classes), config.weights, seed=config.seed)
    # Autocast would convert the images to its type anyway, and half as many bytes travel.
    seen = {"mean": model.mean, "std": model.std, "dtype": amp_dtype or torch.float32}
    train, valid = build_loaders(config, train_dataset, valid_dataset, device=device, **seen)
    return Learner(train, valid, model, build_options(config, train, amp_dtype))


def build_options(config: TrainConfig, train: Loader, amp_dtype: torch.dtype | None) -> TrainingOptions:
    """How the learner trains."""
    smallest, largest = config.sizes
    return TrainingOptions(
        amp_dtype=amp_dtype,
        weight_decay=config.weight_decay,
        bn=config.bn,
        label_smoothing=config.label_smoothing,
        class_weights=class_weights(train) if config.class_weights else None,
        mix=make_mix(config.mix, len(train.classes)),
        accumulate=config.accumulate,
        clip_norm=config.clip_norm,
        ema_decay=config.ema,
        metrics=config.metrics,
        smallest_size=smallest if smallest != largest else None,
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
        "size": config.sizes[1],
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


def class_weights(train: Loader) -> torch.Tensor:
    """Weights (C,) float32 of the classes: 1 on average over the images, and the same for each class as a whole."""
    labels = train.dataset.labels[train.usable]
    counts = torch.bincount(torch.from_numpy(labels[labels != NO_LABEL]), minlength=len(train.classes))
    return (len(labels) / ((counts > 0).sum() * counts.clamp(min=1))).float()


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


def autocast_dtype(device: torch.device, wanted: str) -> torch.dtype | None:
    """The type for autocast: bfloat16 where the hardware has it, else float16 on a GPU and none on a CPU."""
    if device.type == "cpu":
        if wanted == "float16":
            raise FastpetsError("--amp-dtype float16: a CPU trains in bfloat16 or not in mixed precision; leave it out")
        if wanted == "bfloat16" or cpu_has_bfloat16():
            return torch.bfloat16
        print("--amp: this processor has no bfloat16 instructions and would be slower with it; training in float32")
        return None
    if wanted == "auto":
        wanted = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]

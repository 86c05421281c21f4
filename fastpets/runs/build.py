"""Builds what a TrainConfig describes: data sets, loaders, and a learner with its model. Also sets up the process."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from fastpets.augment.preprocessing import Preprocessing
from fastpets.data.dataset import ImageDataset
from fastpets.data.splits import train_valid_datasets
from fastpets.errors import FastpetsError
from fastpets.loading.device import resolve_device
from fastpets.loading.loader import Loader
from fastpets.models.classifier import create_model
from fastpets.runs.config import TrainConfig
from fastpets.training import distributed
from fastpets.training.learner import Learner
from fastpets.training.train_step import resolve_amp_dtype
from fastpets.utils.system import keep_freed_memory, num_processors


def set_up_process(config: TrainConfig) -> torch.device:
    """Prepares this process for training and returns its device.

    Joins the process group under torchrun, and sets torch's number of threads, glibc's allocator and the log level of
    the Hugging Face hub, all of which are global: for commands, not for a library's user.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # create_model reports failed downloads itself
    local_device = distributed.local_device(config.device)
    distributed.start(local_device)
    num_local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(config.num_workers or max(1, num_processors() // num_local_processes))
    device = resolve_device(local_device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def build_learner(config: TrainConfig, device: torch.device) -> Learner:
    """Builds the data sets, their loaders, the model and the learner. Downloads data and weights if need be."""
    amp_dtype = resolve_amp_dtype(device, config.amp_dtype) if config.amp else None
    with distributed.local_first():  # a download is for all processes of the machine
        train_dataset, valid_dataset = build_datasets(config)
        model = create_model(config.arch, len(train_dataset.classes), config.weights, seed=config.seed)
    # Autocast would convert float32 images to its own type anyway, and these are half as large.
    preprocessing = config.preprocessing(mean=model.mean, std=model.std, dtype=amp_dtype or torch.float32)
    train, valid = build_loaders(config, train_dataset, valid_dataset, preprocessing, device)
    return Learner(train, valid, model, config.options())


def build_datasets(config: TrainConfig) -> tuple[ImageDataset, ImageDataset]:
    """The training and the validation data set. Raises FastpetsError for fewer than two classes."""
    train_dataset, valid_dataset = train_valid_datasets(
        _source(config),
        label_from=config.label_from,
        label_pattern=config.label_pattern,
        labels=config.labels,
        split_seed=config.split_seed,
        on_bad_file=config.on_bad_file,
        max_pixels=config.max_pixels,
        num_workers=config.num_workers,
    )
    if len(train_dataset.classes) < 2:
        raise FastpetsError(
            f"classes: {', '.join(train_dataset.classes) or 'none'}; expected at least two; check where the labels "
            "come from (label_from, label_pattern)"
        )
    return train_dataset, valid_dataset


def build_loaders(
    config: TrainConfig,
    train_dataset: ImageDataset,
    valid_dataset: ImageDataset,
    preprocessing: Preprocessing,
    device: str | torch.device,
) -> tuple[Loader, Loader]:
    """The training and the validation loader, with the same preprocessing."""
    both = {
        **preprocessing.to_dict(),
        "batch_size": config.batch_size,
        "cache": config.cache,
        "seed": config.seed,
        "num_workers": config.num_workers,
        "on_bad_file": config.on_bad_file,
        "device": device,
    }
    train = Loader(train_dataset, augment=config.augment, shuffle=True, sampler=config.sampler, drop_last=True, **both)
    return train, Loader(valid_dataset, **both)


def find_lr(learner: Learner) -> float:
    """The learning rate finder's suggestion for the head, which is trained first. All layers are trainable after it."""
    learner.freeze()
    lr = learner.lr_find().valley
    learner.unfreeze()
    return lr


def _source(config: TrainConfig) -> str | Path | None:
    """The images: a path, or None for those that the table of labels names."""
    if config.data == "sample":
        from fastpets.data.sample import sample_folder

        return sample_folder()
    if config.data is not None or config.labels is not None:
        return config.data
    from fastpets.data.pets import pets_folder

    return pets_folder()

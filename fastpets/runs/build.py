"""Builds data sets, loaders and a learner from the settings of a run, and sets up the process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from fastpets.augment.preprocessing import Preprocessing
from fastpets.data import storage
from fastpets.data.dataset import ImageDataset
from fastpets.data.splits import held_out_dataset, train_valid_datasets
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.loading.device import resolve_device
from fastpets.loading.loader import Loader
from fastpets.models.backbones import check_backbone
from fastpets.models.classifier import create_model
from fastpets.runs.config import (
    DataConfig,
    LearnerConfig,
    OutputFlags,
    TrainConfig,
    parse_size,
    read_config,
    read_settings,
)
from fastpets.runs.images import IMAGES, check_images, read_images
from fastpets.runs.recipes import RECIPES
from fastpets.training import distributed
from fastpets.training.learner import Learner
from fastpets.training.phases import Phase
from fastpets.training.train_step import resolve_amp_dtype
from fastpets.utils.system import keep_freed_memory, num_local_processes, num_processors, resolve_num_workers
from fastpets.utils.validation import RecipeName, check_choice

PerChannel = tuple[float, float, float]
TEXTS = ("size", "valid_size", "initial_size", "lr")  # settings that are text on the command line, often of a number


def set_up_process(config: LearnerConfig) -> torch.device:
    """Prepares this process for training and returns its device.

    Joins the process group under torchrun. Sets torch's number of threads, the options of glibc's allocator and the log
    level of huggingface_hub. These are global, so only commands call this function.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # create_model reports failed downloads itself
    local_device = distributed.local_device(config.device)
    distributed.start(local_device)
    limit_threads(config.num_workers)
    device = resolve_device(local_device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def limit_threads(num_workers: int | None) -> None:
    """Sets torch's number of threads. By default torch starts one for each core, whatever the control groups permit."""
    if num_workers is None:
        torch.set_num_threads(max(1, num_processors() // num_local_processes()))  # without resolve_num_workers' maximum
    else:
        torch.set_num_threads(resolve_num_workers(num_workers))


def build_learner(
    config: LearnerConfig,
    device: torch.device,
    normalization: tuple[PerChannel, PerChannel] | None = None,
) -> Learner:
    """Builds the data sets, their loaders, the model and the learner. Downloads missing data and weights.

    With the `normalization`, mean and std, of a run that is resumed, the pretrained weights are not loaded: the state
    of the run has all weights.
    """
    check_backbone(config.arch, "none" if normalization is not None else config.weights)  # before any download
    amp_dtype = resolve_amp_dtype(device, config.amp_dtype) if config.amp else None
    with distributed.local_first():  # the first process of each machine downloads for all of them
        train_dataset, valid_dataset = build_datasets(config)
        weights = config.weights if normalization is None else "none"
        classes = train_dataset.classes
        model = create_model(config.arch, len(classes), weights, classes=classes, head=config.head, seed=config.seed)
    if normalization is not None:
        model.mean, model.std = normalization
        model.pretrained = config.weights != "none"
    # Images in autocast's own type: half as large, and autocast need not convert them.
    preprocessing = config.preprocessing(mean=model.mean, std=model.std, dtype=amp_dtype or torch.float32)
    train, valid = build_loaders(config, train_dataset, valid_dataset, preprocessing, device)
    return Learner(train, valid, model, config.options())


def build_datasets(config: DataConfig) -> tuple[ImageDataset, ImageDataset]:
    """The training and the validation data set, with headers. Raises FastpetsError for fewer than two classes."""
    names = ("split", "valid_share", "k_fold", "split_seed")
    settings = {name: getattr(config, name) for name in names}
    train_dataset, valid_dataset = train_valid_datasets(_source(config), **settings, **_reading(config))
    if len(train_dataset.classes) < 2:
        raise FastpetsError(
            f"classes: {', '.join(train_dataset.classes) or 'none'}; expected at least two; check where the labels "
            "come from (label_from, label_pattern)"
        )
    return train_dataset, valid_dataset


def datasets_of_run(run_folder: Path) -> tuple[ImageDataset, ImageDataset]:
    """The images that a run trained on, and those that it validated on, as it has listed them.

    If they have moved, or the run is of an earlier version and has no list, they are found by the run's settings.
    Raises FastpetsError if these find others.
    """
    if not (run_folder / IMAGES).exists():
        return build_datasets(read_config(run_folder))
    train, valid = read_images(run_folder)
    if storage.exists(valid.paths[0]) or not read_settings(run_folder):  # an exported learner has no settings
        return train, valid
    train, valid = build_datasets(read_config(run_folder))
    check_images(run_folder, train, valid)
    return train, valid


def build_test_loader(config: DataConfig, learner: Learner) -> Loader:
    """A loader of the test images with the settings of the validation loader."""
    with distributed.local_first():
        dataset = held_out_dataset(_source(config), learner.train.dataset, **_reading(config))
    return learner.valid.like(dataset)


def _reading(config: DataConfig) -> dict[str, Any]:
    """The settings with which all parts of a data set are read."""
    names = ("label_from", "label_pattern", "labels", "on_bad_file", "max_pixels", "num_workers")
    return {name: getattr(config, name) for name in names}


def build_loaders(
    config: LearnerConfig,
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
        "cache_dir": config.cache_dir,
        "cache_gb": config.cache_gb,
        "decode": config.decode,
        "seed": config.seed,
        "num_workers": config.num_workers,
        "on_bad_file": config.on_bad_file,
        "device": device,
    }
    train = Loader(train_dataset, augment=config.augment, shuffle=True, sampler=config.sampler, drop_last=True, **both)
    # With augment="none" a Loader plans its epochs as for validation, with batches that may differ between ranks.
    train.sampler.even = True
    if config.valid_size is not None:
        both["size"] = parse_size("valid_size", config.valid_size)
    return train, Loader(valid_dataset, **both)


def _source(config: DataConfig) -> str | Path | None:
    """The path of the images, or None if only the CSV of labels names them."""
    if config.data == "sample":
        from fastpets.data.sample import sample_folder

        return sample_folder()
    if config.data is not None or config.labels is not None:
        return config.data
    from fastpets.data.pets import pets_folder

    return pets_folder()


class Recipe:
    """The settings of a recipe, some of them changed, for use in Python.

        recipe = fastpets.Recipe.strong(data="photos/", arch="resnet50")
        learner = recipe.learner()
        learner.fit(recipe.phases())

    Settings are the flags of `fastpets train`, with values as on the command line, or numbers. Not among them are those
    of what the command does beside training, such as `folds`, `out` and `tta`.

    Attributes:
        config: all settings.
    """

    def __init__(self, name: RecipeName, **changes: Any) -> None:
        check_choice("recipe", name, RecipeName)
        for setting in changes:
            if setting in OutputFlags.__annotations__ and setting != "metrics":
                raise InvalidArgumentError(f"{setting}: only for `fastpets train`; a Recipe trains, and writes nothing")
        text = {key: str(value) for key, value in changes.items() if key in TEXTS and isinstance(value, (int, float))}
        self.config = TrainConfig(recipe=name, **RECIPES[name] | changes | text)

    @classmethod
    def fastai(cls, **changes: Any) -> Recipe:
        """fastai's recipe. `changes` are other values of settings; raises InvalidArgumentError for wrong ones."""
        return cls("fastai", **changes)

    @classmethod
    def fast(cls, **changes: Any) -> Recipe:
        """The fast recipe, with `changes` as of `fastai`."""
        return cls("fast", **changes)

    @classmethod
    def strong(cls, **changes: Any) -> Recipe:
        """The strong recipe, with `changes` as of `fastai`."""
        return cls("strong", **changes)

    def learner(self) -> Learner:
        """A learner with the recipe's loaders, model and options. Downloads missing data and weights."""
        return build_learner(self.config, resolve_device(self.config.device))

    def phases(self) -> list[Phase]:
        """The phases of training, for `Learner.fit`."""
        return self.config.phases(pretrained=self.config.weights != "none")

"""`python -m fastpets.train`: from a folder of pictures to a trained classifier, in one command."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from fastpets.config import TrainConfig
from fastpets.console import EpochTable
from fastpets.errors import FastpetsError

if TYPE_CHECKING:
    import torch

    from fastpets.items import Items
    from fastpets.learner import EpochResult, Learner
    from fastpets.loader import Loader
    from fastpets.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0 when trained, 1 if it cannot be done (one line says why), 130 after Ctrl-C."""
    try:
        config = tyro.cli(TrainConfig, args=arguments, prog="python -m fastpets.train")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; what went wrong, we say
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
            return train(config)
    except FastpetsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped before training began", file=sys.stderr)
        return 130


def train(config: TrainConfig) -> int:
    """The whole run: data, model, run folder, both phases of training. Returns the exit status."""
    import torch

    from fastpets.learner import Learner
    from fastpets.loader import Loader, resolve_device
    from fastpets.model import create_model
    from fastpets.run_folder import RunFolder
    from fastpets.system import keep_freed_memory, num_processors

    device = resolve_device(config.device)
    threads = config.threads or num_processors()
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    amp_dtype = autocast_dtype(device, config.amp_dtype) if config.amp else None

    train_items, valid_items = _items(config)
    model = create_model(config.arch, len(train_items.classes), config.weights)
    settings: dict[str, Any] = {
        "batch_size": config.batch_size,
        "size": config.size,
        "presize": config.presize,
        "seed": config.seed,
        "num_workers": threads,
        "device": device,
        # Autocast would convert the images to this type anyway, and half as many bytes travel.
        "dtype": amp_dtype or torch.float32,
        "mean": model.mean,
        "std": model.std,
        "on_bad_file": config.on_bad_file,
    }
    train_loader = Loader(train_items, augment=True, **settings)
    valid_loader = Loader(valid_items, **settings)
    _describe(train_loader, valid_loader)

    run = RunFolder(config.out or Path("runs", f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{config.arch.replace('/', '-')}"))
    run.save_config({**dataclasses.asdict(config), "device": device, "threads": threads, "amp_dtype": amp_dtype})
    learner = Learner(train_loader, valid_loader, model, amp_dtype=amp_dtype)
    learner.on_epoch_end = _keeper(learner, run, model_description(config, train_loader))
    return _fit(learner, config, run)


def autocast_dtype(device: torch.device, wanted: str) -> torch.dtype | None:
    """The type for autocast: bfloat16 where the hardware has it, else float16 on a GPU and none on a CPU."""
    import torch

    from fastpets.system import cpu_has_bfloat16

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


def model_description(config: TrainConfig, loader: Loader) -> dict[str, Any]:
    """All that a prediction needs beside the weights."""
    return {
        "arch": config.arch,
        "classes": list(loader.classes),
        "size": config.size,
        "presize": config.presize,
        "mean": list(loader.mean),
        "std": list(loader.std),
    }


def _items(config: TrainConfig) -> tuple[Items, Items]:
    """Training and validation items of the data set that the configuration names."""
    from fastpets.loader import open_items

    folder: Path | None
    if config.data == "sample":
        from fastpets.sample import sample_folder

        folder = sample_folder()
    elif config.data is not None:
        folder = Path(config.data)
    elif config.labels is not None:
        folder = None
    else:
        from fastpets.pets import pets_folder

        folder = pets_folder()
    train_items, valid_items = open_items(
        folder,
        label_from=config.label_from,
        label_pattern=config.label_pattern,
        labels=config.labels,
        split_seed=config.split_seed,
        on_bad_file=config.on_bad_file,
    )
    if len(train_items.classes) < 2:
        raise FastpetsError(
            f"one class alone, {train_items.classes[0]!r}, expected at least two; see --label-from and --label-pattern"
        )
    return train_items, valid_items


def _describe(train_loader: Loader, valid_loader: Loader) -> None:
    """Says what was found before it is trained on."""
    items = train_loader.items
    print(f"{len(items)} pictures to train on, {len(valid_loader.items)} to validate, {len(items.classes)} classes")
    if items.left_out:
        names = [Path(path).name for path in items.left_out[:5]] + ["..."] * (len(items.left_out) > 5)
        print(f"no pictures by their names, left out ({len(items.left_out)}): {', '.join(names)}")


def _keeper(learner: Learner, run: RunFolder, description: dict[str, Any]) -> Any:
    """What happens at the end of each epoch: a printed line, a row in metrics.csv, and the model as it is now."""
    table = EpochTable()

    def on_epoch_end(result: EpochResult) -> None:
        table(result)
        run.add_result(result)
        run.save_model(learner.model, description)

    return on_epoch_end


def _fit(learner: Learner, config: TrainConfig, run: RunFolder) -> int:
    try:
        if learner.model.pretrained:
            learner.fine_tune(config.epochs, config.lr, config.freeze_epochs)
        else:
            print("no pretrained weights: all layers train from the start, at one rate")
            learner.fit_one_cycle(config.epochs, config.lr)
    except KeyboardInterrupt:
        kept = f"{run.path} keeps the model of the last one" if learner.history else "there is no model yet"
        print(f"\nstopped after {len(learner.history)} whole epochs; {kept}")
        return 130
    print(f"the model and its numbers are in {run.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The training runs of fastai's chapter on pet breeds, with fastpets and fastai, beside the chapter's own figures.

    python -m bench.chapter                                   # as in the chapter: all images, ResNets, a GPU
    FASTPETS_PETS=... FASTPETS_WEIGHTS=... python -m bench.chapter --few --fastai --seeds 0 1 2

The chapter is "Image Classification" of fastai's book; a row is one of its runs. `--few` trains each row on the images
of FASTPETS_PETS, from the EfficientNet-Lite0 weights of FASTPETS_WEIGHTS, at batch size 32. `--fastai` also trains each
row with fastai: same weights, head, layer groups, schedule and split. Each run is a process of its own, fastpets and
fastai in turn. `--rows` selects rows. Prints a table in Markdown. `--out FILE` saves all numbers as JSON, and skips the
runs that the file already has; a file holds runs with `--few` or without, not both.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

FEW_BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run of the chapter: its settings, and its final error rate and seconds per epoch in the chapter."""

    name: str
    arch: str = "resnet34"
    flags: str
    phases: tuple[tuple[str, Any, Any], ...]  # fastai's calls: method, first argument, keyword arguments
    error_rate: float
    epoch_s: float
    amp: bool = False


def few_arch() -> str:
    """timm's architecture for `--few`, after which the file of weights is named."""
    return Path(os.environ["FASTPETS_WEIGHTS"]).stem


def fine_tuned(name: str, epochs: int, lr: float, freeze_epochs: int, **row: Any) -> Row:
    flags = f"--epochs {epochs} --lr {lr} --freeze-epochs {freeze_epochs}"
    phases = (("fine_tune", epochs, {"base_lr": lr, "freeze_epochs": freeze_epochs}),)
    return Row(name=name, flags=flags, phases=phases, **row)


def two_phases(name: str, epochs: int, lr: float | slice, **row: Any) -> Row:
    rate = f"{lr.start}:{lr.stop}" if isinstance(lr, slice) else str(lr)
    phases = (("freeze", None, {}), ("fit_one_cycle", 3, {"lr_max": 3e-3}))
    phases += (("unfreeze", None, {}), ("fit_one_cycle", epochs, {"lr_max": lr}))
    return Row(name=name, flags=f"--schedule 'frozen 3 3e-3, unfrozen {epochs} {rate}'", phases=phases, **row)


# epoch_s is the mean over the epochs that the chapter lists.
ROWS = (
    fine_tuned("fine_tune(2)", 2, 2e-3, 1, error_rate=0.080514, epoch_s=22.0),
    fine_tuned("fine_tune(1, 0.1)", 1, 0.1, 1, error_rate=0.834235, epoch_s=22.0),
    fine_tuned("fine_tune(2, 3e-3)", 2, 3e-3, 1, error_rate=0.083221, epoch_s=22.7),
    two_phases("frozen 3 3e-3, unfrozen 6 1e-5", 6, 1e-5, error_rate=0.059540, epoch_s=22.9),
    two_phases(
        "frozen 3 3e-3, unfrozen 12 1e-6:1e-4", 12, slice(1e-6, 1e-4), error_rate=0.054127, epoch_s=24.0
    ),
    fine_tuned(
        "fine_tune(6, freeze_epochs=3), mixed precision", 6, 2e-3, 3, arch="resnet50", amp=True, error_rate=0.054804,
        epoch_s=24.4,
    ),
)  # fmt: skip


def run_fastpets(row: Row, seed: int, few: bool, folder: Path) -> dict[str, float]:
    """Runs `python -m fastpets.train` and reads its metrics.csv."""
    import shlex

    out = folder / f"fastpets-{ROWS.index(row)}-{seed}"
    flags = [*shlex.split(row.flags), "--seed", str(seed), "--out", str(out)]
    if few:
        flags += ["--data", os.environ["FASTPETS_PETS"], "--weights", os.environ["FASTPETS_WEIGHTS"]]
        flags += ["--arch", f"timm/{few_arch()}", "--batch-size", str(FEW_BATCH_SIZE)]
    else:
        flags += ["--arch", row.arch, *(["--amp"] if row.amp else [])]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fastpets.train", *flags], check=True, stdout=sys.stderr)
    process_s = time.perf_counter() - started
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "error_rate": float(rows[-1]["error_rate"]),
        "epoch_s": mean(float(each["seconds"]) for each in rows),
        "process_s": process_s,
    }


def run_fastai(row: Row, seed: int, few: bool, folder: Path) -> dict[str, float]:
    """Runs `train_with_fastai` in a process of its own."""
    out = folder / f"fastai-{ROWS.index(row)}-{seed}.json"
    started = time.perf_counter()
    again = [sys.executable, "-m", "bench.chapter", "--train-fastai", str(ROWS.index(row)), str(seed), str(out)]
    subprocess.run([*again, *(["--few"] if few else [])], check=True, stdout=sys.stderr)
    return {**json.loads(out.read_text()), "process_s": time.perf_counter() - started}


def train_with_fastai(row: Row, seed: int, few: bool) -> dict[str, float]:
    """Trains a row with fastai, by the chapter's code, on this project's split."""
    from fastpets.data.pets import pets_folder
    from fastpets.data.splits import train_valid_datasets

    train, valid = train_valid_datasets(os.environ["FASTPETS_PETS"] if few else pets_folder())
    learner = fastai_learner(row, train, valid, seed, few)
    num_epochs, started = 0, time.perf_counter()
    for method, epochs, settings in row.phases:
        getattr(learner, method)(*([] if epochs is None else [epochs]), **settings)
        num_epochs += (epochs or 0) + settings.get("freeze_epochs", 0)
    epoch_s = (time.perf_counter() - started) / num_epochs
    return {"error_rate": float(learner.recorder.values[-1][-1]), "epoch_s": epoch_s}


def fastai_learner(row: Row, train: Any, valid: Any, seed: int, few: bool) -> Any:
    """fastai's Learner for a row, with the images of two ImageDatasets, after seeding."""
    from fastai.vision.all import (
        CategoryBlock,
        CrossEntropyLossFlat,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Learner,
        Normalize,
        Resize,
        aug_transforms,
        error_rate,
        imagenet_stats,
        set_seed,
        vision_learner,
    )
    from fastai.vision.learner import create_timm_model, default_split
    from safetensors.torch import load_file

    label_of = {
        path: dataset.classes[label]
        for dataset in (train, valid)
        for path, label in zip(dataset.paths, dataset.labels, strict=True)
    }
    set_seed(seed, reproducible=True)
    stats = ([0.5] * 3, [0.5] * 3) if few else imagenet_stats
    dls = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda _: [*train.paths, *valid.paths],
        get_y=lambda path: label_of[path],
        splitter=IndexSplitter(range(len(train), len(train) + len(valid))),
        item_tfms=Resize(460),
        batch_tfms=[*aug_transforms(size=224, min_scale=0.75), Normalize.from_stats(*stats)],
    ).dataloaders(None, bs=FEW_BATCH_SIZE if few else 64, num_workers=os.cpu_count())
    if few:
        model, _ = create_timm_model(few_arch(), len(train.classes), pretrained=False)
        state = load_file(os.environ["FASTPETS_WEIGHTS"])
        model[0].model.load_state_dict({name: v for name, v in state.items() if not name.startswith("classifier")})
        learner = Learner(dls, model, loss_func=CrossEntropyLossFlat(), splitter=default_split, metrics=error_rate)
    else:
        import torchvision.models

        learner = vision_learner(dls, getattr(torchvision.models, row.arch), metrics=error_rate)
        learner = learner.to_fp16() if row.amp else learner
    return learner


def table(found: dict[str, Any], few: bool) -> str:
    """Returns a Markdown table of the means over seeds."""
    arch = ", EfficientNet-Lite0" if few else ""
    lines = [
        f"| run | chapter: arch | error | s/epoch | fastpets{arch}: error | s/epoch | fastai: error | s/epoch | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        cells = [row.name, row.arch, f"{row.error_rate:.3f}", f"{row.epoch_s:.0f}"]
        means = {}
        for library in ("fastpets", "fastai"):
            runs = list(found[library].get(row.name, {}).values())
            if runs:
                means[library] = {key: mean(run[key] for run in runs) for key in runs[0]}
                errors = f"{means[library]['error_rate']:.3f}" + (f" (of {len(runs)})" if len(runs) > 1 else "")
                cells += [errors, f"{means[library]['epoch_s']:.1f}"]
            else:
                cells += ["", ""]
        ratio = means["fastpets"]["process_s"] / means["fastai"]["process_s"] if len(means) == 2 else None
        lines.append(f"| {' | '.join(cells)} | {'' if ratio is None else f'{ratio:.2f}'} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=int, nargs="+", default=range(len(ROWS)), help="0 to 5; all by default")
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--fastai", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--train-fastai", nargs=3, metavar=("ROW", "SEED", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    few = arguments.few
    if few and not all(os.environ.get(name) for name in ("FASTPETS_PETS", "FASTPETS_WEIGHTS")):
        sys.exit("set FASTPETS_PETS to the folder of images and FASTPETS_WEIGHTS to the safetensors file")
    if arguments.train_fastai:
        row, seed, out = arguments.train_fastai
        Path(out).write_text(json.dumps(train_with_fastai(ROWS[int(row)], int(seed), few)))
        return
    found: dict[str, Any] = {"few": few, "fastpets": {}, "fastai": {}}
    if arguments.out and arguments.out.exists():
        found = json.loads(arguments.out.read_text())
        if found.get("few") is not few:
            parser.error(f"{arguments.out}: not of runs {'with' if few else 'without'} --few; name another file")
    runners = {"fastpets": run_fastpets} | ({"fastai": run_fastai} if arguments.fastai else {})
    with tempfile.TemporaryDirectory() as folder:
        for row in (ROWS[number] for number in arguments.rows):
            for seed in map(str, arguments.seeds):
                for library, run in runners.items():
                    runs = found[library].setdefault(row.name, {})
                    if seed not in runs:
                        runs[seed] = run(row, int(seed), few, Path(folder))
                        if arguments.out:
                            arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found, few))


if __name__ == "__main__":
    main()

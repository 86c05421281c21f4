"""Transfer learning beside fastai: the same weights, head, layer groups, schedule and split; error and time.

    FASTPETS_PETS=... FASTPETS_WEIGHTS=... python -m bench.transfer

Trains timm's tf_efficientnet_lite0 on the pictures, two epochs frozen and four unfrozen, by this project's command
and by fastai's Learner.fine_tune, each run in a process of its own, in turn, for each seed. Prints a table and the
ratios; --out FILE keeps them as JSON.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

ARCH = "tf_efficientnet_lite0"
BATCH_SIZE, LR, FREEZE_EPOCHS, EPOCHS = 32, 3e-3, 2, 4


def run_fastpets(pictures: str, weights: str, seed: int, folder: Path) -> dict[str, float]:
    """`python -m fastpets.train`, and what its metrics.csv says."""
    flags = ["--freeze-epochs", FREEZE_EPOCHS, "--epochs", EPOCHS, "--lr", LR, "--batch-size", BATCH_SIZE]
    out = folder / f"fastpets-{seed}"
    data = ["--data", pictures, "--arch", f"timm/{ARCH}", "--weights", weights, "--seed", seed, "--out", out]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fastpets.train", *map(str, [*data, *flags])], check=True)
    process_s = time.perf_counter() - started
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "error_rate": float(rows[-1]["error_rate"]),
        "training_s": sum(float(row["seconds"]) for row in rows),
        "process_s": process_s,
    }


def run_fastai(pictures: str, weights: str, seed: int, folder: Path) -> dict[str, float]:
    """This file again, in a process that trains with fastai."""
    out = folder / f"fastai-{seed}.json"
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "bench.transfer", "--fastai", pictures, weights, str(seed), str(out)],
        check=True,
    )
    return {**json.loads(out.read_text()), "process_s": time.perf_counter() - started}


def train_with_fastai(pictures: str, weights: str, seed: int) -> dict[str, float]:
    """The chapter's recipe on fastai, with this project's split."""
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
        set_seed,
    )
    from fastai.vision.learner import create_timm_model, default_split
    from safetensors.torch import load_file

    from fastpets.opening import open_items

    train, valid = open_items(pictures)
    label_of = {
        path: items.classes[label]
        for items in (train, valid)
        for path, label in zip(items.paths, items.labels, strict=True)
    }
    set_seed(seed, reproducible=True)
    dls = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda _: [*train.paths, *valid.paths],
        get_y=lambda path: label_of[path],
        splitter=IndexSplitter(range(len(train), len(train) + len(valid))),
        item_tfms=Resize(460),
        batch_tfms=[*aug_transforms(size=224, min_scale=0.75), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    ).dataloaders(None, bs=BATCH_SIZE, num_workers=os.cpu_count())
    model, _ = create_timm_model(ARCH, len(train.classes), pretrained=False)
    state = {name: value for name, value in load_file(weights).items() if not name.startswith("classifier")}
    model[0].model.load_state_dict(state)
    learner = Learner(dls, model, loss_func=CrossEntropyLossFlat(), splitter=default_split, metrics=error_rate)
    started = time.perf_counter()
    learner.fine_tune(EPOCHS, LR, freeze_epochs=FREEZE_EPOCHS)
    return {"error_rate": float(learner.recorder.values[-1][-1]), "training_s": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--fastai", nargs=4, metavar=("PICTURES", "WEIGHTS", "SEED", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fastai:
        pictures, weights, seed, out = arguments.fastai
        Path(out).write_text(json.dumps(train_with_fastai(pictures, weights, int(seed))))
        return
    places = os.environ.get("FASTPETS_PETS", ""), os.environ.get("FASTPETS_WEIGHTS", "")
    if not all(places):
        sys.exit("set FASTPETS_PETS to the folder of pictures and FASTPETS_WEIGHTS to the safetensors file")
    results: dict[str, list[dict[str, Any]]] = {"fastpets": [], "fastai": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for name, run in (("fastpets", run_fastpets), ("fastai", run_fastai)):
                results[name].append({"seed": seed, **run(*places, seed, Path(folder))})
    means = {
        name: {key: mean(run[key] for run in runs) for key in ("error_rate", "training_s", "process_s")}
        for name, runs in results.items()
    }
    print(f"{'':10}{'error, by seed':>28}{'mean':>8}{'training, s':>13}{'process, s':>12}")
    for name, runs in results.items():
        errors = " ".join(f"{run['error_rate']:.4f}" for run in runs)
        row = means[name]
        print(f"{name:10}{errors:>28}{row['error_rate']:8.4f}{row['training_s']:13.1f}{row['process_s']:12.1f}")
    for key in ("training_s", "process_s"):
        print(f"{key}: {means['fastpets'][key] / means['fastai'][key]:.3f} of fastai's")
    if arguments.out:
        arguments.out.write_text(json.dumps({"runs": results, "means": means}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Cross-validates training recipes on few images: error, loss, calibration and time of each.

    FASTPETS_PETS=... FASTPETS_WEIGHTS=... python -m bench.recipes --out FOLDER --recipes fast fastai
    python -m bench.recipes --out FOLDER --summary --against fastai

Each of five stratified folds validates once for each training seed, by `fastpets.data.random_splits.fold_split`, so the
folds of a fold seed are the same for all recipes. Recipes were chosen on the fold seeds 1 and 2. Final figures are of
fold seed 2026, which was used for nothing else.

A run is a recipe, fold seed, fold and training seed, in a process of its own. FOLDER/runs.csv has a line for each, and
FOLDER/predictions its probabilities. Runs that are in the file are not repeated. `seconds` is the time from the start
of the process to its exit, `cpu_s` the processor time of it and its workers, which depends less on what else runs on
the machine.

`--summary` prints for each recipe the mean over all runs, and the standard error over images: what other images would
change. The differences to `--against` and their standard errors are paired by image. Calibration errors are those of
all 370 images together, with 15 bins of equal width (C. Guo et al., ICML 2017), since those of a fold are biased by its
size.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.chapter import FEW_BATCH_SIZE, ROWS, fastai_learner, few_arch

if TYPE_CHECKING:
    import torch

    from fastpets.data.dataset import ImageDataset

NUM_FOLDS, NUM_BINS = 5, 15
MAX_IMAGES = 100_000
CHOOSING_SEED = 1  # of the folds; the final one is given with --fold-seed
COLUMNS = ("recipe", "fold_seed", "fold", "seed", "error", "loss", "ece", "seconds", "cpu_s")


class Run(NamedTuple):
    """A recipe, its data and its seed."""

    recipe: str
    fold_seed: int
    fold: int
    seed: int


class Outcome(NamedTuple):
    """What the model of a run says of the images it was not trained on."""

    train: ImageDataset
    valid: ImageDataset
    probabilities: torch.Tensor  # (N, C), in the order of `valid`


Recipe = Callable[[Run], Outcome]


def with_fastpets(name: Any, augmented: int = 0, **changes: Any) -> Recipe:
    """A recipe of fastpets, some of its settings changed, with `augmented` versions of each image averaged, if any."""

    def train(run: Run) -> Outcome:
        from fastpets import Recipe
        from fastpets.training.tta import tta

        recipe = Recipe(
            name, data=os.environ["FASTPETS_PETS"], arch=f"timm/{few_arch()}", weights=os.environ["FASTPETS_WEIGHTS"],
            batch_size=FEW_BATCH_SIZE, k_fold=(run.fold, NUM_FOLDS), split_seed=run.fold_seed, seed=run.seed, **changes,
        )  # fmt: skip
        learner = recipe.learner()
        learner.fit(recipe.phases())
        found = tta(learner, augmented) if augmented else learner.get_preds()
        return Outcome(learner.train.dataset, learner.valid.dataset, found[0])

    return train


def with_fastai(run: Run) -> Outcome:
    """The chapter's last run, nine epochs, with fastai."""
    from fastpets.data.splits import train_valid_datasets

    folds = {"k_fold": (run.fold, NUM_FOLDS), "split_seed": run.fold_seed}
    train, valid = train_valid_datasets(os.environ["FASTPETS_PETS"], **folds)
    learner = fastai_learner(ROWS[5], train, valid, run.seed, few=True)
    learner.fine_tune(6, base_lr=2e-3, freeze_epochs=3)
    probabilities = learner.get_preds(dl=learner.dls.valid)[0]
    return Outcome(train, valid, probabilities[:, [list(learner.dls.vocab).index(name) for name in valid.classes]])


RECIPES: dict[str, Recipe] = {
    "fastai": with_fastai,
    "fastpets": with_fastpets("fastai", cache="host"),
    "fast": with_fastpets("fast"),
    "strong": with_fastpets("strong", cache="host"),
    # Each changes one thing.
    "fast-amp": with_fastpets("fast", amp=True),
    "fast-supersample": with_fastpets("fast", supersample=2),
    "fast-tta": with_fastpets("fast", augmented=8),
    "strong-no-average": with_fastpets("strong", cache="host", ema=None),
    "strong-smoothing": with_fastpets("strong", cache="host", mix="none", label_smoothing=0.1),
}


def train(run: Run, file: Path) -> None:
    """Trains in this process, and saves ids, labels and probabilities of the validation images."""
    import torch

    from fastpets.utils.system import keep_freed_memory

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    keep_freed_memory()
    train, valid, probabilities = RECIPES[run.recipe](run)
    assert probabilities.shape == (len(valid), len(valid.classes))
    ids = np.searchsorted(sorted([*train.paths, *valid.paths]), list(valid.paths))
    np.savez(file, ids=ids, labels=valid.labels, probabilities=probabilities.detach().numpy())


def measure(run: Run, folder: Path) -> dict[str, Any]:
    """Trains one run in a process of its own; returns its line."""
    file = prediction_file(folder, run)
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.recipes", "--out", str(folder), "--train", *map(str, run)], stdout=sys.stderr
    )
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        sys.exit(f"{run}: failed")
    saved = np.load(file)
    probabilities, labels = saved["probabilities"], saved["labels"]
    return {
        **run._asdict(),
        **{name: float(values.mean()) for name, values in by_image(probabilities, labels).items()},
        "ece": calibration_error(probabilities, labels),
        "seconds": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def by_image(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Error and cross entropy (N,) of each image, from probabilities (N, C) and labels (N,)."""
    right = np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)
    return {"error": (probabilities.argmax(1) != labels).astype(float), "loss": -np.log(right)}


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean difference between confidence and accuracy over NUM_BINS bins, weighted by their numbers of images."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins, confidence - right, NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def prediction_file(folder: Path, run: Run) -> Path:
    return folder / "predictions" / f"{'_'.join(map(str, run))}.npz"


def read_runs(folder: Path) -> dict[Run, dict[str, float]]:
    """The lines of runs.csv by run."""
    file = folder / "runs.csv"
    if not file.exists():
        return {}
    with open(file, newline="") as lines:
        return {
            Run(row["recipe"], int(row["fold_seed"]), int(row["fold"]), int(row["seed"])): {
                name: float(row[name]) for name in COLUMNS[4:]
            }
            for row in csv.DictReader(lines)
        }


def summary(folder: Path, fold_seed: int, against: str | None) -> str:
    """A Markdown table of the recipes of a fold seed, those with the lowest error first."""
    measured = {run: line for run, line in read_runs(folder).items() if run.fold_seed == fold_seed}
    runs_of = {name: [run for run in measured if run.recipe == name] for name in {run.recipe for run in measured}}
    scores = {name: scores_by_image(folder, runs) for name, runs in runs_of.items()}
    lines = [
        "| recipe | runs | error | loss | ECE | CPU s | s | error, difference | loss, difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(scores, key=lambda each: float(np.nanmean(scores[each]["error"]))):
        runs = runs_of[name]
        (error, deviation), (loss, _) = (mean_and_error(scores[name][each]) for each in ("error", "loss"))
        cpu, seconds = (mean(measured[run][column] for run in runs) for column in ("cpu_s", "seconds"))
        differences = ["", ""]
        if against in scores and name != against:
            both = (scores[name][each] - scores[against][each] for each in ("error", "loss"))
            differences = ["{:+.3f} ± {:.3f}".format(*mean_and_error(each)) for each in both]
        cells = (name, len(runs), f"{error:.3f} ± {deviation:.3f}", f"{loss:.3f}", f"{pooled_ece(folder, runs):.3f}",
                 f"{cpu:.0f}", f"{seconds:.0f}", *differences)  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def predictions(folder: Path, runs: Sequence[Run]) -> Iterator[Any]:
    for run in runs:
        yield np.load(prediction_file(folder, run))


def scores_by_image(folder: Path, runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Error rate and cross entropy by id (MAX_IMAGES,), means over training seeds; NaN where it was not validated."""
    sums, num_runs = {name: np.zeros(MAX_IMAGES) for name in ("error", "loss")}, np.zeros(MAX_IMAGES)
    for saved in predictions(folder, runs):
        for name, values in by_image(saved["probabilities"], saved["labels"]).items():
            sums[name][saved["ids"]] += values
        num_runs[saved["ids"]] += 1
    with np.errstate(invalid="ignore"):
        return {name: values / num_runs for name, values in sums.items()}


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error, without NaN."""
    values = values[~np.isnan(values)]
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def pooled_ece(folder: Path, runs: Sequence[Run]) -> float:
    """The calibration error of the images of all folds together, the mean over training seeds."""
    errors = []
    for seed in {run.seed for run in runs}:
        saved = list(predictions(folder, [run for run in runs if run.seed == seed]))
        probabilities, labels = (np.concatenate([each[name] for each in saved]) for name in ("probabilities", "labels"))
        errors.append(calibration_error(probabilities, labels))
    return mean(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--fold-seed", type=int, default=CHOOSING_SEED)
    parser.add_argument("--folds", type=int, nargs="+", default=range(NUM_FOLDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--against", choices=RECIPES)
    parser.add_argument("--train", nargs=4, metavar=("RECIPE", "FOLD_SEED", "FOLD", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.out
    if arguments.summary:
        print(summary(folder, arguments.fold_seed, arguments.against))
        return
    if not all(os.environ.get(name) for name in ("FASTPETS_PETS", "FASTPETS_WEIGHTS")):
        sys.exit("set FASTPETS_PETS to the folder of images and FASTPETS_WEIGHTS to the safetensors file")
    if arguments.train:
        recipe, *numbers = arguments.train
        run = Run(recipe, *map(int, numbers))
        train(run, prediction_file(folder, run))
        return
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    for recipe, seed, fold in product(arguments.recipes, arguments.seeds, arguments.folds):
        run = Run(recipe, arguments.fold_seed, fold, seed)
        if run in (done := read_runs(folder)):
            continue
        line = measure(run, folder)
        with open(folder / "runs.csv", "a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if not done and file.tell() == 0:
                writer.writeheader()
            writer.writerow(
                {name: f"{value:.5f}" if isinstance(value, float) else value for name, value in line.items()}
            )
        print(line, flush=True)


if __name__ == "__main__":
    main()

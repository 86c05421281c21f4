"""Cross-validates training recipes on few images: error, loss, calibration and time of each.

    FASTPETS_PETS=... FASTPETS_WEIGHTS=... python -m bench.recipes --out FOLDER --recipes probe-256 fastpets --seeds 0
    python -m bench.recipes --out FOLDER --summary --against fastai

Each of five stratified folds validates once for each training seed, by `fastpets.data.random_splits.fold_split`, so the
folds of a fold seed are the same for all recipes. Recipes were chosen on fold seed 1. Final figures are of fold seed
2026, which was used for nothing else.

A run is a recipe, fold seed, fold and training seed, in a process of its own. FOLDER/runs.csv has a line for each, and
FOLDER/predictions its probabilities. Runs that are in the file are not repeated. While the file of `--pause` exists, no
run starts. `seconds` is the time from the start of the process to its exit, `cpu_s` the processor time of it and its
workers, which depends less on what else runs on the machine.

`--summary` prints for each recipe the mean over all runs, and the standard error over images: what other images would
change. The difference to `--against` and its standard error are paired by image. Calibration errors are those of all
370 images together, with 15 bins of equal width (C. Guo et al., ICML 2017), since those of a fold are biased by its
size; likewise, `error` and `loss` of folds are weighted by their numbers of images.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.chapter import FEW_BATCH_SIZE, ROWS, fastai_learner, few_arch

if TYPE_CHECKING:
    import torch

    from fastpets.data.dataset import ImageDataset
    from fastpets.loading.loader import Loader
    from fastpets.models.classifier import Classifier

NUM_FOLDS, NUM_BINS = 5, 15
CHOOSING, FINAL = 1, 2026  # fold seeds
COLUMNS = ("recipe", "fold_seed", "fold", "seed", "error", "loss", "ece", "seconds", "cpu_s")


class Data(NamedTuple):
    """The training and the validation images of a run."""

    train: ImageDataset
    valid: ImageDataset


Recipe = Callable[[Data, int], "torch.Tensor"]  # to probabilities (N, C) of the N validation images, in order


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """The chapter's last run, nine epochs, with fastpets or fastai: the default of `fastpets train`."""

    library: str

    def __call__(self, data: Data, seed: int) -> torch.Tensor:
        from fastpets.models.classifier import create_model
        from fastpets.training.learner import Learner

        if self.library == "fastai":
            return self._with_fastai(data, seed)
        model = create_model(f"timm/{few_arch()}", len(data.train.classes), os.environ["FASTPETS_WEIGHTS"], seed=seed)
        train = loader(data.train, model, seed=seed, augment=True, cache="host")
        learner = Learner(train, loader(data.valid, model, cache="host"), model, options(seed=seed))
        learner.fine_tune(6, base_lr=2e-3, freeze_epochs=3)
        return learner.get_preds()[0]

    @staticmethod
    def _with_fastai(data: Data, seed: int) -> torch.Tensor:
        learner = fastai_learner(ROWS[5], data.train, data.valid, seed, few=True)
        learner.fine_tune(6, base_lr=2e-3, freeze_epochs=3)
        probabilities = learner.get_preds(dl=learner.dls.valid)[0]
        return probabilities[:, [list(learner.dls.vocab).index(name) for name in data.valid.classes]]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A linear classifier on the averaged features of the pretrained network, which stays as it is.

    Args:
        sizes: of the images, in pixels. The classifier learns from all of them, and its logits are averaged over them.
        flip: whether to learn from mirror images as well.
        decay: weight of the squared weights beside the mean cross entropy, for features of unit variance.
        amp: whether to compute the features in bfloat16 where the processor has it.
    """

    sizes: tuple[int, ...] = (224,)
    flip: bool = False
    decay: float = 1e-3
    amp: bool = True

    def __call__(self, data: Data, seed: int) -> torch.Tensor:
        model = self.fitted(data, seed)
        logits = [model.head(features(model, data.valid, size, amp=self.amp)) for size in self.sizes]
        return sum(logits).div(len(logits)).softmax(1)

    def fitted(self, data: Data, seed: int) -> Classifier:
        """The pretrained network with average pooling and a linear head, fitted to the training images."""
        import torch

        from fastpets.training.head_fit import fit_linear

        model = linear_model(data.train, seed)
        views = [(size, flip) for size in self.sizes for flip in (False, True)[: 1 + self.flip]]
        inputs = torch.cat([features(model, data.train, size, flip=flip, amp=self.amp) for size, flip in views])
        labels = torch.from_numpy(data.train.labels).repeat(len(views))
        fit_linear(model.head[-1], inputs, labels, self.decay)
        return model


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Fits a Probe, then trains the whole network, with its norm layers as they are.

    Args:
        epochs, lr: of one cycle; the rate of the first layers and of the head.
        size: of the training images, in pixels. Validation images have those of the probe.
        augment: changes of the default augmentation.
        options: of the learner.
        frozen_blocks: number of the network's first blocks, with what precedes them, that do not train.
    """

    probe: Probe = Probe()
    epochs: int = 4
    lr: tuple[float, float] = (1e-4, 1e-3)
    size: int = 224
    augment: tuple[tuple[str, float], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    frozen_blocks: int = 0
    flip_valid: bool = False

    def __call__(self, data: Data, seed: int) -> torch.Tensor:
        from fastpets.augment.policy import Augment
        from fastpets.training.learner import Learner

        model = self.probe.fitted(data, seed)
        network: Any = model.backbone.network
        for module in [network.conv_stem, network.bn1, *network.blocks[: self.frozen_blocks]] * bool(
            self.frozen_blocks
        ):
            module.requires_grad_(False)
        train = loader(data.train, model, self.size, seed=seed, augment=Augment(**dict(self.augment)), cache="host")
        valid = loader(data.valid, model, self.probe.sizes[0], cache="host")
        learner = Learner(train, valid, model, options(seed=seed, bn="fixed", **dict(self.options)))
        learner.unfreeze()
        learner.fit_one_cycle(self.epochs, slice(*self.lr))
        views = [(size, flip) for size in self.probe.sizes for flip in (False, True)[: 1 + self.flip_valid]]
        trained: Any = learner.train_step.evaluated_model
        logits = [trained.head(features(trained, data.valid, *view, amp=self.probe.amp)) for view in views]
        return sum(logits).div(len(logits)).softmax(1)


RECIPES: dict[str, Recipe] = {
    "fastai": Chapter(library="fastai"),
    "fastpets": Chapter(library="fastpets"),
    "probe-224": Probe(),
    "probe-256": Probe(sizes=(256,)),
    "probe-multi": Probe(sizes=(256, 288, 320)),
    "tune-1e-4": Tune(probe=Probe(sizes=(256,)), lr=(1e-4, 3e-4)),
    "tune-3e-5": Tune(probe=Probe(sizes=(256,)), lr=(3e-5, 1e-4)),
}


def options(**changes: Any) -> Any:
    from fastpets.training.options import TrainingOptions

    return TrainingOptions(**changes)


def loader(dataset: ImageDataset, model: Classifier, size: int = 224, **settings: Any) -> Loader:
    """A Loader with the normalisation of the model."""
    from fastpets.loading.loader import Loader

    settings = {"batch_size": FEW_BATCH_SIZE, "mean": model.mean, "std": model.std, **settings}
    return Loader(dataset, size=size, device="cpu", **settings)


def linear_model(dataset: ImageDataset, seed: int) -> Classifier:
    """The pretrained network with a linear head."""
    from fastpets.models.classifier import create_model

    weights = os.environ["FASTPETS_WEIGHTS"]
    return create_model(f"timm/{few_arch()}", len(dataset.classes), weights, head="linear", seed=seed)


def features(
    model: Classifier, dataset: ImageDataset, size: int, flip: bool = False, *, amp: bool = False
) -> torch.Tensor:
    """The features (N, F) float32 of all images, by the model in evaluation mode."""
    import torch

    from fastpets.training.train_step import resolve_amp_dtype

    dtype = resolve_amp_dtype(torch.device("cpu"), "auto") if amp else None
    model.eval().to(memory_format=torch.channels_last)
    images = loader(dataset, model, size, dtype=dtype or torch.float32)
    found = []
    with torch.inference_mode(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        for batch in images:
            found.append(model.backbone(batch.images.flip(3) if flip else batch.images).flatten(1).float())
    return torch.cat(found)


def datasets(fold_seed: int, fold: int) -> Data:
    from fastpets.data.splits import train_valid_datasets

    return Data(*train_valid_datasets(os.environ["FASTPETS_PETS"], k_fold=(fold, NUM_FOLDS), split_seed=fold_seed))


class Key(NamedTuple):
    """A run."""

    recipe: str
    fold_seed: int
    fold: int
    seed: int


def train(key: Key, file: Path) -> None:
    """Trains one run in this process, and saves ids, labels and probabilities of its validation images."""
    import torch

    from fastpets.utils.system import keep_freed_memory

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    keep_freed_memory()
    data = datasets(key.fold_seed, key.fold)
    probabilities = RECIPES[key.recipe](data, key.seed).detach().numpy()
    assert probabilities.shape == (len(data.valid), len(data.valid.classes))
    ids = np.searchsorted(sorted([*data.train.paths, *data.valid.paths]), list(data.valid.paths))
    np.savez(file, ids=ids, labels=data.valid.labels, probabilities=probabilities)


def measure(key: Key, folder: Path) -> dict[str, Any]:
    """Trains one run in a process of its own; returns its line."""
    file = prediction_file(folder, key)
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.recipes", "--out", str(folder), "--train", *map(str, key)], stdout=sys.stderr
    )
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        sys.exit(f"{key}: failed")
    saved = np.load(file)
    scores = scored(saved["probabilities"], saved["labels"])
    return {**key._asdict(), **scores, "seconds": seconds, "cpu_s": usage.ru_utime + usage.ru_stime}


def scored(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Error rate, cross entropy and expected calibration error of probabilities (N, C) and labels (N,)."""
    wrong = probabilities.argmax(1) != labels
    loss = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))
    ece = calibration_error(probabilities, labels)
    return {"error": float(wrong.mean()), "loss": float(loss.mean()), "ece": ece}


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean difference between confidence and accuracy over NUM_BINS bins, weighted by their numbers of images."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins, confidence - right, NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def prediction_file(folder: Path, key: Key) -> Path:
    return folder / "predictions" / f"{'_'.join(map(str, key))}.npz"


def read_runs(folder: Path) -> dict[Key, dict[str, float]]:
    """The lines of runs.csv by run."""
    file = folder / "runs.csv"
    if not file.exists():
        return {}
    with open(file, newline="") as lines:
        return {
            Key(row["recipe"], int(row["fold_seed"]), int(row["fold"]), int(row["seed"])): {
                name: float(row[name]) for name in COLUMNS[4:]
            }
            for row in csv.DictReader(lines)
        }


def summary(folder: Path, fold_seed: int, against: str | None) -> str:
    """A Markdown table of the recipes of a fold seed, those with the lowest error first."""
    runs = {key: run for key, run in read_runs(folder).items() if key.fold_seed == fold_seed}
    wrong = {name: errors_by_image(folder, [key for key in runs if key.recipe == name]) for name in
             dict.fromkeys(key.recipe for key in runs)}  # fmt: skip
    lines = ["| recipe | runs | error | loss | ECE | CPU s | s | difference |", "|---|---|---|---|---|---|---|---|"]
    for name in sorted(wrong, key=lambda each: float(np.nanmean(wrong[each]))):
        keys = [key for key in runs if key.recipe == name]
        error, deviation = mean_and_error(wrong[name])
        loss, ece = pooled(folder, keys)
        cpu, seconds = (mean(runs[key][column] for key in keys) for column in ("cpu_s", "seconds"))
        difference = ""
        if against in wrong and name != against:
            difference = "{:+.3f} ± {:.3f}".format(*mean_and_error(wrong[name] - wrong[against]))
        lines.append(
            f"| {name} | {len(keys)} | {error:.3f} ± {deviation:.3f} | {loss:.3f} | {ece:.3f} | {cpu:.0f} | "
            f"{seconds:.0f} | {difference} |"
        )
    return "\n".join(lines)


def predictions(folder: Path, keys: Sequence[Key]) -> Iterator[Any]:
    for key in keys:
        yield np.load(prediction_file(folder, key))


def errors_by_image(folder: Path, keys: Sequence[Key]) -> np.ndarray:
    """The error rate of each image (N,) over training seeds; NaN where it was not validated."""
    num_wrong, num_runs = np.zeros(100_000), np.zeros(100_000)
    for saved in predictions(folder, keys):
        num_wrong[saved["ids"]] += saved["probabilities"].argmax(1) != saved["labels"]
        num_runs[saved["ids"]] += 1
    with np.errstate(invalid="ignore"):
        return (num_wrong / num_runs)[: int(np.flatnonzero(num_runs).max()) + 1]


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error, without NaN."""
    values = values[~np.isnan(values)]
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def pooled(folder: Path, keys: Sequence[Key]) -> tuple[float, float]:
    """Loss and calibration error of the images of all folds together, means over training seeds."""
    scores = []
    for seed in {key.seed for key in keys}:
        saved = list(predictions(folder, [key for key in keys if key.seed == seed]))
        both = (np.concatenate([each[name] for each in saved]) for name in ("probabilities", "labels"))
        scores.append(scored(*both))
    return mean(each["loss"] for each in scores), mean(each["ece"] for each in scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--fold-seed", type=int, default=CHOOSING)
    parser.add_argument("--folds", type=int, nargs="+", default=range(NUM_FOLDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pause", type=Path, metavar="FILE", help="wait before each run while this file exists")
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
        key = Key(recipe, *map(int, numbers))
        train(key, prediction_file(folder, key))
        return
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    for recipe, seed, fold in product(arguments.recipes, arguments.seeds, arguments.folds):
        key = Key(recipe, arguments.fold_seed, fold, seed)
        if key in (done := read_runs(folder)):
            continue
        while arguments.pause is not None and arguments.pause.exists():
            time.sleep(2)
        line = measure(key, folder)
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

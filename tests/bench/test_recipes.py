"""The comparison of recipes: its scores, its folds and its table."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from bench import recipes
from bench.recipes import Run
from fastpets.data.splits import train_valid_datasets
from fastpets.training.head_fit import fit_linear


def predictions(seed: int, num_images: int = 200, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = 3 * random.normal(size=(num_images, num_classes))
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), random.integers(num_classes, size=num_images)


@pytest.mark.parametrize("seed", range(5))
def test_calibration_errors_are_those_of_torchmetrics(seed: int) -> None:
    probabilities, labels = predictions(seed)
    reference = MulticlassCalibrationError(num_classes=5, n_bins=recipes.NUM_BINS, norm="l1")
    expected = float(reference(torch.from_numpy(probabilities), torch.from_numpy(labels)))
    assert recipes.calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_the_table_pools_the_images_of_all_folds_and_pairs_them(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    _, labels = predictions(0, num_images=10)
    order = np.random.default_rng(1).permutation(10)
    lines = [",".join(recipes.COLUMNS)]
    for name, num_right in (("fastai", 0), ("fast", 4)):
        given = np.eye(5)[np.where(np.arange(10) < num_right, labels, (labels + 1) % 5)] * 0.9 + 0.02
        for fold in range(2):
            ids, run = order[fold::2], Run(name, 1, fold, 0)
            np.savez(recipes.prediction_file(tmp_path, run), ids=ids, labels=labels[ids], probabilities=given[ids])
            lines.append(",".join(map(str, (*run, 0, 0, 0, 3, 4))))
    (tmp_path / "runs.csv").write_text("\n".join(lines) + "\n")
    _, _, best, other = recipes.summary(tmp_path, 1, "fastai").splitlines()
    spread = np.sqrt(0.6 * 0.4 / 9)  # standard error of ten values, of which four are 1 and the others 0
    wrong, gain = -np.log(0.02), np.log(0.92 / 0.02)  # losses of a wrong image, and what a right one has less
    measured = f"| fast | 2 | 0.600 ± {spread:.3f} | {wrong - 0.4 * gain:.3f} | 0.520 | 4 | 3 |"
    assert best == f"{measured} -0.400 ± {spread:.3f} | {-0.4 * gain:.3f} ± {spread * gain:.3f} |"
    assert other == f"| fastai | 2 | 1.000 ± 0.000 | {wrong:.3f} | 0.920 | 4 | 3 |  |  |"


@pytest.mark.slow
def test_a_recipe_is_measured_on_a_fold_of_real_images_once(
    pets: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["recipes", "--out", str(tmp_path), "--recipes", "fast", "--folds", "1"]
    monkeypatch.setattr(sys, "argv", flags)
    recipes.main()
    recipes.main()
    [(run, line)] = recipes.read_runs(tmp_path).items()
    assert run == Run("fast", 1, 1, 0)
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 2  # its title, and the run once
    assert line["error"] <= 0.2  # fastai's nine epochs: 0.28 to 0.42
    assert line["seconds"] > 0
    saved = np.load(recipes.prediction_file(tmp_path, run))
    _, valid = train_valid_datasets(str(pets), k_fold=(1, 5), split_seed=1)
    assert saved["labels"].tolist() == valid.labels.tolist()
    monkeypatch.setattr(sys, "argv", [*flags, "--summary"])
    recipes.main()
    assert capfd.readouterr().out.splitlines()[-1].startswith(f"| fast | 1 | {line['error']:.3f} ± ")


def test_a_linear_layer_is_fitted_to_the_minimum_of_its_loss() -> None:
    torch.manual_seed(0)
    inputs, labels = 5 + 2 * torch.randn(60, 8, dtype=torch.float64), torch.arange(60) % 3
    layer, decay = torch.nn.Linear(8, 3).double(), 0.01
    fit_linear(layer, inputs, labels, decay)
    scale = inputs.std(0).mean()
    weight, bias = layer.weight.detach().clone().requires_grad_(), layer.bias.detach().clone().requires_grad_()
    penalty = decay * (weight * scale).square().sum()
    (torch.nn.functional.cross_entropy(inputs @ weight.T + bias, labels) + penalty).backward()
    for parameter in (weight, bias):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < 1e-3

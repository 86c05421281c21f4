"""Interpretation, compared with torchmetrics, cross entropy and direct counts."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

import fastpets
from fastpets.analysis import plots
from fastpets.analysis.interpretation import Interpretation
from fastpets.errors import FastpetsError
from fastpets.training.learner import Learner
from fastpets.utils.figures import FIGURE_DPI
from tests.small_resnet import small_resnet

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def interpretation(make_folder: Callable[..., Path]) -> Interpretation:
    """Of 40 images in four classes, with random logits."""
    loader = fastpets.Loader(make_folder(40, 4), size=16, batch_size=16)
    generator = torch.Generator().manual_seed(0)
    return Interpretation.of(loader, lambda images: 2 * torch.randn(len(images), 4, generator=generator))


def tensors(found: Interpretation) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(found.probabilities), torch.from_numpy(found.labels)


def test_the_confusion_matrix_and_the_calibration_error(
    interpretation: Interpretation,
) -> None:
    probabilities, labels = tensors(interpretation)
    expected = np.zeros((4, 4), np.int64)
    np.add.at(expected, (interpretation.labels, interpretation.predicted), 1)
    assert interpretation.confusion_matrix().tolist() == expected.tolist()
    assert interpretation.confusion_matrix().dtype == np.int64
    error = multiclass_calibration_error(probabilities, labels, 4, n_bins=10, norm="l1")
    assert interpretation.calibration_error() == pytest.approx(error.item(), rel=1e-6)
    _, _, counts = interpretation.calibration()
    assert counts.sum() == 40


def test_losses_are_the_cross_entropy_and_the_highest_come_first(interpretation: Interpretation) -> None:
    probabilities, labels = tensors(interpretation)
    expected = cross_entropy(probabilities.log(), labels, reduction="none")
    assert interpretation.losses == pytest.approx(expected.numpy(), rel=1e-9)
    top = interpretation.top_losses()
    assert [each.loss for each in top] == pytest.approx(sorted(expected.tolist(), reverse=True), rel=1e-9)
    assert len(interpretation.top_losses(3)) == 3
    for each in top:
        assert Path(each.path).name.startswith(each.actual + "_")


def test_most_confused_sorts_pairs_by_their_counts(interpretation: Interpretation) -> None:
    pairs = interpretation.most_confused(min_val=2)
    matrix = interpretation.confusion_matrix()
    assert [count for _, _, count in pairs] == sorted((count for _, _, count in pairs), reverse=True)
    for actual, predicted, count in pairs:
        place = interpretation.classes.index(actual), interpretation.classes.index(predicted)
        assert matrix[place] == count >= 2
        assert actual != predicted
    assert len(pairs) == ((matrix >= 2) & ~np.eye(4, dtype=bool)).sum()
    mistakes = interpretation.mistakes()
    assert len(mistakes) == matrix.sum() - matrix.trace()
    assert all(each.actual != each.predicted for each in mistakes)


def test_precision_and_recall_of_each_class(interpretation: Interpretation) -> None:
    for number, row in enumerate(interpretation.per_class()):
        actual, predicted = interpretation.labels == number, interpretation.predicted == number
        assert row["images"] == actual.sum()
        assert row["recall"] == pytest.approx((actual & predicted).sum() / actual.sum())
        assert row["precision"] == pytest.approx((actual & predicted).sum() / predicted.sum(), nan_ok=True)


def test_from_learner_agrees_with_validate_and_get_preds(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(30), size=32, batch_size=4)
    learner = Learner(train, valid, small_resnet())
    found = Interpretation.from_learner(learner)
    values = learner.validate()
    assert found.losses.mean() == pytest.approx(values["valid_loss"], rel=1e-5)
    assert (found.predicted != found.labels).mean() == pytest.approx(values["error_rate"])
    probabilities, labels = learner.get_preds()
    assert found.probabilities == pytest.approx(probabilities.numpy(), abs=1e-6)
    assert found.labels.tolist() == labels.tolist()


def test_from_run_agrees_with_the_last_epoch(trained_run: Path) -> None:
    import csv

    last = list(csv.DictReader((trained_run / "metrics.csv").read_text().splitlines()))[-1]
    found = Interpretation.from_run(trained_run, device="cpu")
    assert found.losses.mean() == pytest.approx(float(last["valid_loss"]), rel=1e-5)
    assert (found.predicted != found.labels).mean() == pytest.approx(float(last["error_rate"]))
    with pytest.raises(FastpetsError, match=r"model.json: No such file"):
        Interpretation.from_run(trained_run.parent)


@pytest.mark.parametrize("num_classes", [2, 37, 200])
def test_confusion_matrices_have_one_size_of_type_and_red_mistakes(tmp_path: Path, num_classes: int) -> None:
    from PIL import Image

    matrix = np.zeros((num_classes, num_classes), int)
    matrix[0, 0], matrix[0, 1] = 3, 2
    names = [f"a breed with a name that is long {number}$" for number in range(num_classes)]
    plots.plot_confusion_matrix(matrix, names, tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as image:
        assert min(image.size) >= 500
        if num_classes <= plots.MAX_NAMED_CLASSES:
            assert min(image.size) / num_classes >= FIGURE_DPI * 8 / 72  # a line of 8 points for each class
        else:
            assert max(image.size) <= 2500
        red, green, blue = np.asarray(image.convert("RGB")).reshape(-1, 3).T.astype(int)
    assert (red > blue + 50).any()
    assert (blue > red + 50).any()
    assert (np.abs(green - red) + np.abs(green - blue) > 50).mean() < 0.5  # empty cells are white


def test_the_legend_of_the_calibration_covers_no_point(interpretation: Interpretation) -> None:
    from matplotlib import pyplot

    interpretation.plot_calibration()
    axes = pyplot.gcf().axes[0]
    assert axes.get_legend() is None
    assert axes.get_title() == f"expected calibration error {interpretation.calibration_error():.3f}"
    pyplot.close()


def test_calibration_and_top_losses_are_plotted(interpretation: Interpretation, tmp_path: Path) -> None:
    interpretation.plot_calibration(tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    image = interpretation.plot_top_losses(5, tmp_path / "top.png")
    assert (tmp_path / "top.png").exists()
    assert image.size[0] > 300


def test_no_losses_are_plotted_and_files_that_are_gone_are_replaced(
    interpretation: Interpretation, tmp_path: Path
) -> None:
    assert interpretation.plot_top_losses(0).size[0] > 0
    Path(interpretation.top_losses(1)[0].path).unlink()
    with pytest.warns(fastpets.BadFileWarning):
        interpretation.plot_top_losses(5)


def test_from_run_matches_classes_by_name_and_names_those_that_the_model_does_not_know(
    trained_run: Path, tmp_path: Path
) -> None:
    expected = Interpretation.from_run(trained_run, device="cpu")
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    description = json.loads((run / "model.json").read_text())
    weights = load_file(run / "model.safetensors")
    last = next(name for name in weights if name.startswith("head.6"))
    order = [2, 0, 1]
    (run / "model.json").write_text(json.dumps(description | {"classes": [description["classes"][i] for i in order]}))
    save_file(weights | {last: weights[last][order].contiguous()}, run / "model.safetensors")
    found = Interpretation.from_run(run, device="cpu")  # the same model, with its classes in another order
    assert found.losses == pytest.approx(expected.losses, rel=1e-6)
    assert [each.actual for each in found.top_losses()] == [each.actual for each in expected.top_losses()]
    (run / "model.json").write_text(json.dumps(description | {"classes": ["wolf", *description["classes"][1:]]}))
    name = re.escape(repr(description["classes"][0]))
    with pytest.raises(FastpetsError, match=rf"run: .* has class {name}, which has no training images"):
        Interpretation.from_run(run, device="cpu")

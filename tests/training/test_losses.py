"""Losses and metrics of the user's own: their values, and that mistakes are found when the learner is created."""

import math
from functools import partial
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torchvision.ops import sigmoid_focal_loss

import fastpets
from fastpets import Learner, Loader, TrainingOptions
from fastpets.errors import InvalidArgumentError
from tests.training.test_models import Net

F1 = torchmetrics.F1Score(task="multiclass", num_classes=2, average="macro")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loader, Loader]:
    from tests.images import drawing

    folder = tmp_path_factory.mktemp("images")
    for number in range(30):
        drawing(40 + number, 50, seed=number).save(folder / f"kind{number % 2}_{number}.jpg")
    return fastpets.loaders(folder, size=32, batch_size=8)


def make(both: tuple[Loader, Loader], **options: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(*both, Net(), TrainingOptions(**options), print_epochs=False)


def focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    targets = labels if labels.ndim == 2 else one_hot(labels, logits.shape[1])
    return sigmoid_focal_loss(logits, targets.float(), reduction="mean")


def test_a_loss_of_the_users_own_trains(both: tuple[Loader, Loader]) -> None:
    weights = []
    for loss in (None, nn.CrossEntropyLoss(), cross_entropy, focal):
        both[0].set_epoch(0)
        learner = make(both, loss=loss)
        learner.fit_one_cycle(1, 1e-2)
        weights.append(learner.model.head.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    images, labels = learner.one_batch()
    learner.model.train()
    torch.testing.assert_close(
        learner.train_step.backward(images, labels), focal(learner.model(images), labels).detach()
    )
    learner.model.eval()
    logits, labels = zip(*((learner.model(images), labels) for images, labels in both[1]), strict=True)
    expected = cross_entropy(torch.cat(logits), torch.cat(labels))  # whatever the training loss is
    assert learner.validate()["valid_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_mixed_labels_reach_a_loss_that_takes_them(both: tuple[Loader, Loader]) -> None:
    make(both, loss=focal, mix="both").fit_one_cycle(1, 1e-3)

    def hard(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.nll_loss(logits.log_softmax(1), labels)

    with pytest.raises(InvalidArgumentError, match=r"^loss: hard fails with .*, which mix='mixup' makes of labels: "):
        make(both, loss=hard, mix="mixup")


@pytest.mark.filterwarnings("ignore:Using a target size")  # of MSELoss
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": 3}, "^loss: 3, expected a module or a function"),
        (
            {"loss": cross_entropy, "label_smoothing": 0.1},
            "^label_smoothing: only for the default loss, cross entropy;",
        ),
        ({"loss": cross_entropy, "class_weights": True}, "^class_weights: only for the default loss, cross entropy;"),
        (
            {"loss": cross_entropy, "class_weights": torch.ones(2)},
            "^class_weights: only for the default loss, cross entropy;",
        ),
        (
            {"loss": lambda logits, labels: cross_entropy(logits, labels).reshape(1)},
            r"gives a tensor \(1,\) for .*, expected a scalar",
        ),
        ({"loss": nn.CrossEntropyLoss}, "^loss: CrossEntropyLoss fails with logits .*RuntimeError"),
        ({"loss": nn.MSELoss()}, r"^loss: MSELoss fails with logits \(B, C\) and labels \(B,\) int64: RuntimeError: "),
        ({"loss": partial(cross_entropy, reduction="none")}, r"^loss: partial gives a tensor \(3,\) for logits"),
        (
            {"loss": lambda logits, labels: 1.0},
            "gives float for .*, expected a scalar tensor that depends on the logits",
        ),
        (
            {"loss": lambda logits, labels: logits.argmax().float()},
            "expected a scalar tensor that depends on the logits",
        ),
        ({"metrics": "accuracy"}, "^metrics: 'accuracy', expected a tuple of names, or a dict$"),
        ({"metrics": ("f1",)}, "^metrics: 'f1', expected one of accuracy, top5, macro_f1, recall"),
        (
            {"metrics": [F1]},
            r"^metrics: MulticlassF1Score\(\) without a name, expected a dict such as \{'f1': metric\}",
        ),
        ({"metrics": {"f1": "f1"}}, "^metrics: f1: 'f1', expected one of accuracy, top5, macro_f1, recall"),
        (
            {"metrics": {"f1": torchmetrics.F1Score}},
            "^metrics: f1: <class .*, expected a torchmetrics.Metric object, a",
        ),
        ({"metrics": {"error_rate": F1}}, "^metrics: the name 'error_rate', expected one without"),
        ({"metrics": {"a/b": F1}}, "^metrics: the name 'a/b', expected one without"),
        (
            {"metrics": {"f1": torchmetrics.F1Score(task="multiclass", num_classes=7)}},
            r"^metrics: f1 fails with probabilities \(2, 2\) and labels \(2,\) int64: ValueError",
        ),
        (
            {"metrics": {"each": torchmetrics.F1Score(task="multiclass", num_classes=2, average=None)}},
            r"^metrics: each gives a tensor \(2,\), expected one number",
        ),
        ({"metrics": {"mine": lambda probabilities: 0.0}}, "^metrics: mine fails .*: TypeError: .*positional argument"),
        (
            {"metrics": {"mine": lambda probabilities, labels: None}},
            "^metrics: mine gives NoneType, expected one number",
        ),
    ],
)
def test_mistakes_are_found_when_the_learner_is_created(
    both: tuple[Loader, Loader], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as raised:
        make(both, **options)
    assert "\n" not in str(raised.value)


def test_a_loss_with_parameters_is_refused(both: tuple[Loader, Loader]) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return cross_entropy(logits * self.scale, labels)

    with pytest.raises(InvalidArgumentError, match=r"^loss: a module with parameters of its own, which the optimizer"):
        make(both, loss=Scaled())


def test_metrics_of_the_users_own_are_those_of_all_validation_images(both: tuple[Loader, Loader]) -> None:
    """Their values are those of the libraries on all predictions at once."""
    calls: list[int] = []

    def mean_confidence(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
        calls.append(len(labels))
        return probabilities.max(1).values.mean().item()

    auroc = torchmetrics.AUROC(task="multiclass", num_classes=2)
    metrics = {"f1": F1, "hits": "accuracy", "class": "recall", "auroc": auroc, "confidence": mean_confidence}
    learner = make((both[0], both[1].like(both[1].dataset, batch_size=4)), metrics=metrics)
    learner.fit_one_cycle(1, 1e-2)
    values = learner.history[0].metrics
    probabilities, labels = learner.get_preds()
    predicted = probabilities.argmax(1)
    hits = [((predicted == c) & (labels == c)).sum().item() for c in range(2)]
    counts, guesses = torch.bincount(labels, minlength=2).tolist(), torch.bincount(predicted, minlength=2).tolist()
    expected = {
        "f1": sum(2 * hit / max(1, count + guess) for hit, count, guess in zip(hits, counts, guesses, strict=True)) / 2,
        "hits": sum(hits) / len(labels),
        "class/kind0": hits[0] / counts[0],
        "class/kind1": hits[1] / counts[1],
        "auroc": torchmetrics.functional.auroc(probabilities, labels, task="multiclass", num_classes=2).item(),
        "confidence": probabilities.max(1).values.mean().item(),
    }
    assert values == pytest.approx(expected, rel=1e-5)
    assert calls == [2, 6]  # once before training, and once for all images
    assert learner.validate()["f1"] == pytest.approx(expected["f1"])
    assert F1.update_count == 0  # the user's own object is not changed


def test_a_metric_that_fails_on_the_classes_of_the_validation_images_is_found_before_training(
    both: tuple[Loader, Loader],
) -> None:
    def log_loss(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
        """As scikit-learn's, which takes the number of classes from the labels."""
        if len(labels.unique()) != probabilities.shape[1]:
            raise ValueError("y_true and y_pred contain different number of classes 1, 2")
        return cross_entropy(probabilities.log(), labels).item()

    valid = both[1]
    of_one_class = valid.like([path for path in valid.dataset.paths if "kind0" in path], label_from="name")
    with pytest.raises(
        InvalidArgumentError, match=r"^metrics: mine fails with probabilities \(1, 2\) and labels \(1,\) int"
    ):
        make((both[0], of_one_class), metrics={"mine": log_loss})
    learner = make(both, metrics={"mine": log_loss, "f1": F1})
    with pytest.warns(UserWarning, match=r"^metrics: mine fails: ValueError: y_true and y_pred .*; its value is NaN$"):
        values = learner.validate(of_one_class)
    assert math.isnan(values["mine"])
    assert math.isfinite(values["f1"])


def test_an_epoch_is_not_lost_for_a_metric(both: tuple[Loader, Loader]) -> None:
    calls = iter(range(10))

    def fails_later(probabilities: torch.Tensor, labels: torch.Tensor) -> float | None:
        return 1.0 if next(calls) == 0 else None

    learner = make(both, metrics={"mine": fails_later})
    with pytest.warns(UserWarning, match=r"^metrics: mine gives NoneType, expected one number; its value is NaN$"):
        learner.fit_one_cycle(1, 1e-3)
    assert math.isnan(learner.history[0].metrics["mine"])

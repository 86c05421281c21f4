"""Neither a training step nor validation waits for the GPU in a batch; once in an epoch is allowed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastpets
from fastpets.analysis.interpretation import Interpretation
from fastpets.loading.batch import Batch
from fastpets.training.host_copies import HostCopies
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions
from fastpets.training.train_step import MovingAverage, TrainStep
from tests.small_resnet import small_resnet
from tests.waiting import WAITING, imagined_gpu, nothing_waits

OPTIONS = [
    {},
    {"amp": True, "amp_dtype": "bfloat16"},
    {"clip_norm": 1.0},
    {"label_smoothing": 0.1, "bn": "eval"},
]


@pytest.mark.filterwarnings("ignore:.*CUDA is not available", "ignore:.*no CUDA")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_training_step_does_not_wait_for_the_gpu(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with imagined_gpu() as device:
        with device:
            model = small_resnet(3)
        monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)  # cannot swap parameters without values
        train_step = TrainStep(model, TrainingOptions(**options), device)
        # The autograd engine needs a real device; what it runs are kernels without results on the host.
        monkeypatch.setattr(torch.Tensor, "backward", lambda loss: [fill_gradient(each) for each in model.parameters()])
        train_step.train_mode()
        images, labels = torch.zeros(4, 3, 32, 32, device=device), torch.zeros(4, dtype=torch.int64, device=device)
        with nothing_waits():
            for _ in range(3):
                train_step.step(images, labels)


def test_a_moving_average_does_not_wait_for_the_gpu() -> None:
    model = small_resnet(3).to("meta")
    average = MovingAverage(model, 0.9)
    with nothing_waits():
        for _ in range(3):
            average.update_parameters(model)


def test_predicting_waits_for_the_gpu_only_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[int] = []
    monkeypatch.setattr(HostCopies, "joined", lambda self: joined.append(len(self._copies)))
    with imagined_gpu() as device:
        images, labels = torch.zeros(4, 3, 8, 8, device=device), torch.zeros(4, dtype=torch.int64, device=device)
        batches: Any = [Batch(images, labels, np.arange(4))] * 3
        with nothing_waits(), pytest.raises(AttributeError):  # there is nothing to evaluate
            Interpretation.of(batches, lambda images: images.mean((2, 3)))
    assert joined == [4, 4]  # an empty tensor and three batches


def fill_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = torch.zeros_like(parameter)


@pytest.fixture
def waits() -> Iterator[list[str]]:
    """The names of the operations of the test, in this thread, for which it would wait if they were on a GPU."""
    found: list[str] = []

    class Collect(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function.overloadpacket.__name__ in WAITING:
                found.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    with Collect():
        yield found


@pytest.mark.parametrize("what", ["validate", "get_preds", "train"])
def test_the_number_of_waits_does_not_depend_on_the_number_of_batches(
    make_folder: Callable[..., Path], waits: list[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    # The Recorder reads a loss when two later batches are queued.
    monkeypatch.setattr("fastpets.training.recorder.Recorder.add", lambda *_: None)
    folder, counts = make_folder(20), []
    options = TrainingOptions(metrics=("accuracy", "top5", "macro_f1", "recall"), clip_norm=1.0)
    for batch_size in (8, 2):
        train, valid = fastpets.loaders(folder, size=32, batch_size=batch_size, device="cpu")
        learner = Learner(train, valid, small_resnet(), options, print_epochs=False)
        functions = {
            "validate": learner.validate,
            "get_preds": learner.get_preds,
            "train": lambda learner=learner: learner.fit_one_cycle(1, 1e-3),
        }
        waits.clear()
        functions[what]()
        counts.append(len([*waits]))
    assert counts[0] == counts[1]

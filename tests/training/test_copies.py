"""A copied or pickled Learner trains on as the original would, in this process and in others."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

import fastpets
from fastpets import Learner, TrainingOptions

State = dict[str, torch.Tensor]


def make_learner(folder: Path, **options: object) -> Learner:
    train, valid = fastpets.loaders(folder, size=32, batch_size=8, device="cpu", num_workers=1)
    return Learner(train, valid, fastpets.create_model("squeezenet1_1", 2, "none"), TrainingOptions(**options))


def weights_after_an_epoch(learner: Learner) -> State:
    learner.fit_one_cycle(1, 1e-3)
    return {name: value.clone() for name, value in learner.train_step.evaluated_model.state_dict().items()}


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def pickled(learner: Learner) -> Learner:
    return pickle.loads(pickle.dumps(learner))


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "mix": "both", "class_weights": True}], ids=["plain", "options"])
@pytest.mark.parametrize("make_copy", [copy.deepcopy, pickled])
def test_a_copy_trains_on_as_the_original_would(
    make_folder: Callable[..., Path], make_copy: Callable[[Learner], Learner], options: dict[str, object]
) -> None:
    learner = make_learner(make_folder(20), **options)
    new = make_copy(learner)
    first = weights_after_an_epoch(learner)
    used = make_copy(learner)
    assert equal(weights_after_an_epoch(new), first)  # the original's training has not changed the copy
    assert (len(used.history), used.recorder.losses) == (1, learner.recorder.losses)
    second = weights_after_an_epoch(used)
    assert not equal(second, first)
    assert equal(weights_after_an_epoch(learner), second)


def train(learner: Learner, answer: Connection) -> None:
    """Runs in a child process."""
    torch.set_num_threads(1)
    answer.send({name: value.numpy() for name, value in weights_after_an_epoch(learner).items()})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_another_process_trains_a_pickled_learner(make_folder: Callable[..., Path], method: str) -> None:
    learner = make_learner(make_folder(20))
    weights_after_an_epoch(learner)
    kept = copy.deepcopy(learner)  # torch sends tensors to a process as memory that both share
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=train, args=(learner, theirs))
    child.start()
    theirs.close()
    assert ours.poll(120)
    found = {name: torch.from_numpy(value) for name, value in ours.recv().items()}
    child.join(60)
    assert child.exitcode == 0
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert equal(found, weights_after_an_epoch(kept))
    finally:
        torch.set_num_threads(num_threads)

"""When DistributedDataParallel exchanges gradients, in one process that counts as two."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from fastpets.training import distributed, out_of_memory
from fastpets.training.options import TrainingOptions
from fastpets.training.train_step import TrainStep
from tests.training.test_train_step import batch, tiny_model


@pytest.fixture
def train_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainStep]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    yield TrainStep(tiny_model(), TrainingOptions(), torch.device("cpu"))
    dist.destroy_process_group()


@pytest.fixture
def exchanged(train_step: TrainStep) -> list[int]:
    """The sizes of the gradients that were exchanged."""
    found: list[int] = []

    def count(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        found.append(bucket.buffer().numel())
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    train_step.wrapped_model.register_comm_hook(None, count)
    return found


def test_only_the_last_of_the_accumulated_batches_exchanges_gradients(
    train_step: TrainStep, exchanged: list[int]
) -> None:
    train_step.step(*batch())  # the first pass records the graph
    exchanged.clear()
    for is_last in (False, False, True):
        assert exchanged == []
        train_step.backward(*batch(), 1 / 3, is_last=is_last)
    assert sum(exchanged) == sum(parameter.numel() for parameter in train_step.model.parameters())


def test_the_search_for_a_batch_size_exchanges_no_gradients_after_a_pass_that_failed(
    train_step: TrainStep, exchanged: list[int]
) -> None:
    for _ in range(2):
        train_step.step(*batch())
    exchanged.clear()
    train_step.logits(batch()[0], train_step.wrapped_model)  # out of memory before the backward pass
    assert out_of_memory.largest_fitting(train_step, 8, (6, 6), torch.float32) == 4
    assert exchanged == []
    assert all(parameter.grad is None for parameter in train_step.model.parameters())


def test_gradients_that_were_not_exchanged_are_averaged_before_the_optimizer_step(
    train_step: TrainStep, exchanged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    averaged: list[torch.nn.Module] = []
    monkeypatch.setattr(distributed, "average_gradients", averaged.append)
    train_step.step(*batch())
    train_step.step(*batch())
    assert averaged == []
    train_step.backward(*batch(), 1 / 2, is_last=False)
    train_step.optimizer_step()
    train_step.step(*batch())
    assert averaged == [train_step.model]

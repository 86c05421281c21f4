"""Hugging Face Accelerate, in one process."""

from pathlib import Path

import pytest
import torch

import fastpets
from tests.clients.batch_recorder import BatchRecorder, MakeLoaders, check_passes, check_same, evaluate, pixels

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed; it comes with the extra clients")


def test_a_prepared_loop_has_each_batch_of_each_epoch_once(make_loaders: MakeLoaders, model: torch.nn.Module) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    train, valid = make_loaders(device=accelerator.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = BatchRecorder(model)
    model, optimizer, train_loader, valid_loader = accelerator.prepare(model, optimizer, train, valid)
    for _ in range(2):
        model.train()
        for images, labels in train_loader:
            accelerator.backward(criterion(model(images), labels))
            optimizer.step()
            optimizer.zero_grad()
        evaluate(model, criterion, valid_loader)
    check_passes(criterion.passes(), *make_loaders())
    criterion.check_learning()


def test_a_saved_state_resumes_with_the_next_batch(make_loaders: MakeLoaders, tmp_path: Path) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    train, _ = make_loaders()
    whole = pixels(train)
    accelerator.register_for_checkpointing(train)
    train.set_epoch(0)
    for _ in train:
        accelerator.save_state(tmp_path)
        break
    pixels(train)
    accelerator.load_state(tmp_path)
    check_same(pixels(train), whole[1:])
    assert train.epoch == 1


def test_skipped_batches_are_those_that_accelerates_function_skips(make_loaders: MakeLoaders) -> None:
    train, _ = make_loaders(shuffle=False)
    whole = pixels(train)
    ids = torch.utils.data.TensorDataset(torch.tensor([id for batch in whole for id in batch]))
    plain = torch.utils.data.DataLoader(ids, batch_size=train.batch_size)
    expected = [batch[0].tolist() for batch in accelerate.skip_first_batches(plain, 2)]
    train.set_epoch(0)
    train.skip_batches(2)
    assert [list(batch) for batch in pixels(train)] == expected


@pytest.mark.parametrize("num_batches", [0, 1, 3])
def test_a_loop_continues_after_the_skipped_batches_and_the_next_epoch_is_whole(
    make_loaders: MakeLoaders, num_batches: int
) -> None:
    train, _ = make_loaders()
    first, second = pixels(train), pixels(train)
    train, _ = make_loaders()
    train.skip_batches(num_batches)
    state = train.state_dict()
    check_same(pixels(train), first[num_batches:])
    check_same(pixels(train), second)
    train.load_state_dict(state)
    check_same(pixels(train), first[num_batches:])
    with pytest.raises(
        fastpets.InvalidArgumentError, match=rf"^num_batches: 99, expected a value from 0 to {len(first)}$"
    ):
        train.skip_batches(99)

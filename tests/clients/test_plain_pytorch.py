"""A training loop as in PyTorch's tutorials."""

import torch

from tests.clients.batch_recorder import BatchRecorder, MakeLoaders, check_passes, evaluate


def test_a_plain_loop_has_each_batch_of_each_epoch_once(make_loaders: MakeLoaders, model: torch.nn.Module) -> None:
    train, valid = make_loaders()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = BatchRecorder(model)
    for _ in range(2):
        model.train()
        for images, labels in train:
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        evaluate(model, criterion, valid)
    check_passes(criterion.passes(), *make_loaders())
    criterion.check_learning()

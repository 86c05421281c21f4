"""Functions as in torchvision's references/classification/train.py."""

import pytest
import torch
from torchvision.transforms import v2

from fastpets import Loader
from tests.clients.batch_recorder import NUM_CLASSES, BatchRecorder, MakeLoaders, Step, check_passes

MIXES = [v2.MixUp(num_classes=NUM_CLASSES), v2.CutMix(num_classes=NUM_CLASSES)]


def train_one_epoch(
    model: torch.nn.Module, criterion: BatchRecorder, optimizer: torch.optim.Optimizer, data_loader: Loader, epoch: int
) -> None:
    data_loader.sampler.set_epoch(epoch)
    model.train()
    for image, target in data_loader:
        output = model(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def evaluate(model: torch.nn.Module, criterion: BatchRecorder, data_loader: Loader) -> None:
    model.eval()
    num_processed_samples = 0
    with torch.inference_mode():
        for image, target in data_loader:
            criterion(model(image), target)
            num_processed_samples += image.shape[0]
    assert num_processed_samples == len(data_loader.dataset)  # torchvision's script warns otherwise


def test_torchvisions_functions_have_each_batch_of_each_epoch_once(
    make_loaders: MakeLoaders, model: torch.nn.Module
) -> None:
    train, valid = make_loaders()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = BatchRecorder(model)
    for epoch in range(2):
        train_one_epoch(model, criterion, optimizer, train, epoch)
        evaluate(model, criterion, valid)
    check_passes(criterion.passes(), *make_loaders())
    criterion.check_learning()


@pytest.mark.parametrize("mix", [*MIXES, v2.RandomChoice(MIXES)], ids=["MixUp", "CutMix", "either"])
def test_mixed_batches_are_of_the_same_images_and_set_epoch_repeats_an_epoch(
    make_loaders: MakeLoaders, model: torch.nn.Module, mix: v2.Transform
) -> None:
    train, _ = make_loaders(batch_transform=mix)
    unmixed, valid = make_loaders()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = BatchRecorder(model)
    for epoch in (0, 1, 0):
        torch.manual_seed(5)  # torchvision draws mixing ratios from torch's generator
        train_one_epoch(model, criterion, optimizer, train, epoch)
        evaluate(model, criterion, valid)
    criterion.check_learning()
    passes = criterion.passes()[::2]
    for steps, epoch in zip(passes, (0, 1, 0), strict=True):
        assert len(steps) == len(train)
        unmixed.set_epoch(epoch)
        check_shares(steps, unmixed)
    first, second, again = ([step.images for step in steps] for steps in passes)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, second))


def check_shares(steps: list[Step], unmixed: Loader) -> None:
    """Checks that each batch mixes its images and loses none: each label's shares add up to 1."""
    for step, (images, labels) in zip(steps, unmixed, strict=True):
        expected = torch.nn.functional.one_hot(labels, NUM_CLASSES).float()
        torch.testing.assert_close(step.labels.sum(0), expected.sum(0))
        assert not torch.equal(step.labels, expected)
        assert not torch.equal(step.images, images)

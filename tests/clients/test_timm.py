"""timm's model, optimizer and scheduler, in a loop like that of its train.py."""

import pytest
import torch

from tests.clients.batch_recorder import NUM_CLASSES, BatchRecorder, MakeLoaders, check_passes, evaluate

timm = pytest.importorskip("timm", reason="timm is not installed; it comes with the extra clients")


def test_timms_loop_has_each_batch_of_each_epoch_once(make_loaders: MakeLoaders) -> None:
    from timm.data import resolve_model_data_config
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    model = timm.create_model("test_resnet", num_classes=NUM_CLASSES)
    data = resolve_model_data_config(model)
    train, valid = make_loaders(mean=data["mean"], std=data["std"])
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2)
    scheduler, num_epochs = create_scheduler_v2(
        optimizer, num_epochs=2, updates_per_epoch=len(train), step_on_epochs=False
    )
    rates = []
    criterion = BatchRecorder(model)
    for epoch in range(num_epochs):
        train.sampler.set_epoch(epoch)
        model.train()
        for step, (images, labels) in enumerate(train, start=1):
            rates.append(optimizer.param_groups[0]["lr"])
            criterion(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step_update(epoch * len(train) + step)
        evaluate(model, criterion, valid)
        scheduler.step(epoch + 1)
    check_passes(criterion.passes(), *make_loaders(mean=data["mean"], std=data["std"]))
    criterion.check_learning()
    whole_epochs = torch.linspace(0, torch.pi, 2 * len(train) + 1)[:-1]
    assert rates == pytest.approx((1e-2 * (1 + whole_epochs.cos()) / 2).tolist(), rel=1e-4)

"""Lightning's Trainer, with validation, its sanity check, and a checkpoint in the middle of an epoch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.clients.batch_recorder import BatchRecorder, MakeLoaders, Pixels, check_passes, check_same, mean_loss, pixels

lightning = pytest.importorskip("lightning", reason="lightning is not installed; it comes with the extra clients")


class Classifier(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.criterion = BatchRecorder(model)

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        images, labels = batch
        return self.criterion(self.model(images), labels)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        images, labels = batch
        self.log("valid_loss", self.criterion(self.model(images), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(**settings: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", max_epochs=2, **quiet, **settings)


def test_a_fit_has_two_batches_for_its_sanity_check_and_then_each_batch_of_each_epoch_once(
    make_loaders: MakeLoaders, model: torch.nn.Module
) -> None:
    train, valid = make_loaders()
    classifier = Classifier(model)
    trainer = make_trainer(num_sanity_val_steps=2, enable_checkpointing=False)
    trainer.fit(classifier, train, valid)
    sanity, *passes = classifier.criterion.passes()
    assert [step.training for step in sanity] == [False, False]
    check_passes(passes, *make_loaders())
    classifier.criterion.check_learning()
    assert trainer.callback_metrics["valid_loss"].item() == pytest.approx(mean_loss(passes[-1]), rel=1e-4)


@pytest.mark.parametrize("step", [2, 3, 4])  # in the first epoch, at its end, in the second
def test_a_fit_from_a_checkpoint_resumes_with_the_next_batch(
    make_loaders: MakeLoaders, model: torch.nn.Module, tmp_path: Path, step: int
) -> None:
    def trained(checkpoint: Path | None = None) -> list[Pixels]:
        classifier = Classifier(copy.deepcopy(model))
        every = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        make_trainer(callbacks=[every]).fit(classifier, make_loaders()[0], ckpt_path=checkpoint)
        return pixels((step.images, step.labels) for step in classifier.criterion.steps)

    whole = trained()
    assert len(whole) == 6
    rest = trained(tmp_path / f"step={step}.ckpt")
    assert len(rest) == 6 - step
    for found, expected in zip(rest, whole[step:], strict=True):
        check_same([found], [expected])

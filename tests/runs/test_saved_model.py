"""The model of a run folder."""

from pathlib import Path

from fastpets.augment.preprocessing import Preprocessing
from fastpets.models.classifier import create_model
from fastpets.runs.saved_model import load_run, save_model
from fastpets.training.options import TrainingOptions
from fastpets.training.train_step import TrainStep


def test_a_loaded_model_is_pretrained_so_that_it_can_be_fine_tuned(tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.3))
    model = create_model("resnet18", 2, "none")
    save_model(tmp_path, model, arch="resnet18", classes=("cat", "dog"), preprocessing=preprocessing)
    saved = load_run(tmp_path, "cpu")
    assert (saved.model.mean, saved.model.std) == (preprocessing.mean, preprocessing.std)
    TrainStep(saved.model, TrainingOptions(), saved.device).freeze_to(-1)
    assert not saved.model.backbone.conv1.weight.requires_grad

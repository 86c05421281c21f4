"""Recipes: what they are, how flags change them, and that the options they need do what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import fastpets
from fastpets.cli import main
from fastpets.errors import InvalidArgumentError
from fastpets.flags import parse
from fastpets.models.classifier import NORM_LAYERS, create_model
from fastpets.runs.config import TrainConfig, read_config
from fastpets.runs.predictor import load, save_model
from fastpets.runs.recipes import RECIPES, SUMMARIES
from fastpets.utils.validation import RecipeName

SMALL = {"arch": "squeezenet1_1", "weights": "none", "size": "32", "valid_size": "48", "batch_size": 8, "device": "cpu"}


def parsed(*flags: str) -> TrainConfig:
    return parse(TrainConfig, flags, "fastpets train")


def test_every_recipe_has_settings_and_a_summary_and_the_default_is_fastais() -> None:
    assert set(RECIPES) == set(SUMMARIES) == set(get_args(RecipeName))
    assert TrainConfig(**RECIPES["fastai"]) == TrainConfig() == parsed()


@pytest.mark.parametrize("name", get_args(RecipeName))
def test_a_recipe_is_the_same_by_flag_and_in_python_and_flags_change_it(name: RecipeName) -> None:
    assert parsed("--recipe", name) == fastpets.Recipe(name).config
    changed = parsed("--recipe", name, "--freeze-epochs", "4", "--seed", "7")
    assert changed == getattr(fastpets.Recipe, name)(freeze_epochs=4, seed=7).config
    assert changed.phases(pretrained=True)[0].epochs == 4


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^recipe: 'fats', expected one of fastai, fast, strong"):
        fastpets.Recipe("fats")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="epoch"):
        fastpets.Recipe.fast(epoch=3)
    assert main(["train", "--valid-size", "0"]) == 1
    assert capsys.readouterr().err.startswith("error: --valid-size: 0, expected a value from 1 to 16384")
    assert main(["train", "--recipe", "fast", "--config", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: --recipe: given with config")


def test_the_command_lists_the_recipes_with_flags_that_give_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for (name, settings), title, flags in zip(RECIPES.items(), lines[::2], lines[1::2], strict=True):
        assert title.split()[0] == name
        if settings:
            assert parsed(*flags.split()) == TrainConfig(**settings)


def test_a_recipe_trains_in_python_and_its_run_resumes(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SMALL, "data": str(make_folder(30)), "epochs": 1}
    recipe = fastpets.Recipe.fast(**settings)
    learner = recipe.learner()
    learner.fit(recipe.phases())
    assert [type(layer) for layer in learner.model.head] == [torch.nn.BatchNorm1d, torch.nn.Dropout, torch.nn.Linear]
    assert (learner.train.preprocessing.size, learner.valid.preprocessing.size) == ((32, 32), (48, 48))
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    run = tmp_path / "run"
    assert main(["train", "--recipe", "fast", *flags, "--out", str(run)]) == 0
    assert read_config(run).recipe == "fast"
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0
    predictor = load(run, "cpu")
    assert predictor.preprocessing.size == (48, 48)
    assert predictor.model.head_name == "linear"


def test_a_head_of_another_kind_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("squeezenet1_1", 2, "none", classes=("a", "b"), head="linear")
    save_model(
        tmp_path, model, arch=model.arch, classes=("a", "b"), preprocessing=fastpets.Preprocessing(size=(32, 32))
    )
    same = create_model("squeezenet1_1", 2, tmp_path, classes=("b", "a"), head="linear")
    assert torch.equal(same.head[-1].weight, model.head[-1].weight[[1, 0]])
    create_model("squeezenet1_1", 2, tmp_path, classes=("a", "b"))
    assert "the head is new, since the run's is linear, not fastai" in capsys.readouterr().out


def test_the_loaders_of_a_valid_size_differ_in_it(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=32, valid_size=(40, 48), batch_size=4)
    assert next(iter(train)).images.shape[2:] == (32, 32)
    assert next(iter(valid)).images.shape[2:] == (40, 48)


@pytest.mark.parametrize(
    ("bn", "pretrained", "trains"), [("eval", True, True), ("fixed", True, False), ("fixed", False, True)]
)
def test_fixed_norm_layers_of_pretrained_models_train_in_the_head_only(
    make_folder: Callable[..., Path], bn: Any, pretrained: bool, trains: bool
) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=32, batch_size=8)
    model = create_model("resnet18", 2, "none")
    model.pretrained = pretrained
    learner = fastpets.Learner(train, valid, model, fastpets.TrainingOptions(bn=bn), print_epochs=False)
    norms = [layer for layer in model.backbone.modules() if isinstance(layer, NORM_LAYERS)]
    before = [{name: value.clone() for name, value in layer.state_dict().items()} for layer in norms]
    weight = model.backbone.conv1.weight.clone()
    head_mean = model.head[0].running_mean.clone()
    learner.unfreeze()
    learner.fit_one_cycle(1, 1e-3)
    assert not torch.equal(model.backbone.conv1.weight, weight)
    assert not torch.equal(model.head[0].running_mean, head_mean)
    same = [torch.equal(layer.state_dict()[name], value) for layer, values in zip(norms, before, strict=True)
            for name, value in values.items()]  # fmt: skip
    assert all(same) != trains

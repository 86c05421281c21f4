"""Recipes: what they are, how flags change them, and that the options they need do what they say."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import fastpets
from fastpets.cli import main
from fastpets.errors import InvalidArgumentError
from fastpets.flags import command_line, parse
from fastpets.models.classifier import NORM_LAYERS, create_model
from fastpets.runs.config import TrainConfig, read_config
from fastpets.runs.predictor import load, save_model
from fastpets.runs.recipes import RECIPES, SUMMARIES
from fastpets.training import head_fit
from fastpets.training.phases import parse_schedule
from fastpets.utils.validation import RecipeName
from tests.small_resnet import small_resnet

SMALL = {"arch": "squeezenet1_1", "weights": "none", "size": "32", "valid_size": "48", "batch_size": 8, "device": "cpu"}


def parsed(*flags: str) -> TrainConfig:
    return parse(TrainConfig, flags, "fastpets train")


def test_every_recipe_has_settings_and_a_summary_and_the_default_is_fastais() -> None:
    assert set(RECIPES) == set(SUMMARIES) == set(get_args(RecipeName))
    assert TrainConfig(**RECIPES["fastai"]) == TrainConfig() == parsed()


@pytest.mark.parametrize("name", get_args(RecipeName))
def test_a_recipe_is_the_same_by_flag_and_in_python_and_flags_change_it(name: RecipeName) -> None:
    assert parsed("--recipe", name) == fastpets.Recipe(name).config
    changed = parsed("--recipe", name, "--schedule", "frozen 4 1e-3", "--seed", "7")
    assert changed == getattr(fastpets.Recipe, name)(schedule="frozen 4 1e-3", seed=7).config
    assert [phase.epochs for phase in changed.phases(pretrained=True)] == [4]


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^recipe: 'fats', expected one of fastai, fast, strong"):
        fastpets.Recipe("fats")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="epoch"):
        fastpets.Recipe.fast(epoch=3)
    with pytest.raises(InvalidArgumentError, match=r"^folds: only for `fastpets train`"):
        fastpets.Recipe.fast(folds=5)
    assert main(["train", "--valid-size", "0"]) == 1
    assert capsys.readouterr().err.startswith("error: --valid-size: 0, expected a value from 1 to 16384")
    assert main(["train", "--recipe", "strong", "--epochs", "10"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: --epochs: given with --schedule 'fitted, unfrozen 4 1e-4:1e-3', which has the epochs and the rates of "
    )
    assert main(["train", "--recipe", "fast", "--config", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: --recipe: given with config")


def test_the_command_lists_the_recipes_with_flags_that_give_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for (name, settings), title, flags in zip(RECIPES.items(), lines[::2], lines[1::2], strict=True):
        assert title.split()[0] == name
        if settings:
            assert parsed(*shlex.split(flags)) == TrainConfig(**settings)


@pytest.mark.parametrize("changes", [{}, {"size": "224"}, {"ema": None, "mix": "none", "bn": "train"}])
def test_the_command_of_a_changed_recipe_gives_its_settings_again(changes: dict[str, Any]) -> None:
    config = fastpets.Recipe.strong(**changes).config
    name, command, *flags = shlex.split(command_line("train", config))
    assert (name, command) == ("fastpets", "train")
    assert parsed(*flags) == config


def test_numbers_are_settings_too() -> None:
    assert fastpets.Recipe.fast(size=288).config == fastpets.Recipe.fast(size="288").config
    assert fastpets.Recipe.fastai(lr=1e-3).phases() == fastpets.Recipe.fastai(lr="1e-3").phases()


def test_a_recipe_trains_in_python_and_its_run_resumes(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SMALL, "data": str(make_folder(30))}
    recipe = fastpets.Recipe.strong(**settings, schedule="fitted, unfrozen 1 1e-4")
    learner = recipe.learner()
    learner.fit(recipe.phases())
    assert [result.phase for result in learner.history] == ["fitted", "unfrozen"]
    assert [type(layer) for layer in learner.model.head] == [torch.nn.Linear]
    assert (learner.train.preprocessing.size, learner.valid.preprocessing.size) == ((32, 32), (48, 48))
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    run = tmp_path / "run"
    assert main(["train", "--recipe", "fast", *flags, "--out", str(run)]) == 0
    assert read_config(run).recipe == "fast"
    assert main(["train", "--resume", str(run), "--schedule", "fitted, frozen 1 1e-3"]) == 0
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
    model = small_resnet()
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


def test_a_fitted_head_is_scikit_learns_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 200)
    features = random.normal(size=(200, 30)) * 3 + 5 + np.eye(4, 30)[labels] * 4
    layer = torch.nn.Linear(30, 4)
    loss = head_fit.fit_linear(layer, torch.tensor(features).float(), torch.tensor(labels))
    with torch.no_grad():
        found = layer(torch.tensor(features).float()).softmax(1).numpy()
    scaled = (features - features.mean(0)) / features.std(0, ddof=1).mean()
    # Its objective is the sum of the losses and half the squared weights / C.
    expected = linear_model.LogisticRegression(C=1 / (2 * head_fit.WEIGHT_DECAY * 200), max_iter=10_000, tol=1e-8)
    expected.fit(scaled, labels)
    assert np.abs(found - expected.predict_proba(scaled)).max() < 0.01  # both stop near the optimum
    assert loss.item() == pytest.approx(-np.log(found[np.arange(200), labels]).mean(), rel=1e-3)


def test_a_fitted_head_needs_a_linear_one_and_is_averaged_too(
    make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--schedule", "fitted"]) == 1
    assert "error: --schedule: 'fitted' with --head fastai; use --head linear" in capsys.readouterr().err
    train, valid = fastpets.loaders(make_folder(30), size=32, batch_size=8)
    learner = fastpets.Learner(train, valid, "squeezenet1_1", weights="none", print_epochs=False)
    with pytest.raises(InvalidArgumentError, match=r"^schedule: a fitted head, but the model's is not linear"):
        learner.fit(parse_schedule("fitted"))
    model = create_model("squeezenet1_1", 2, "none", head="linear")
    learner = fastpets.Learner(train, valid, model, fastpets.TrainingOptions(ema=0.9), print_epochs=False)
    learner.fit(parse_schedule("unfrozen 1 1e-3, fitted"))
    averaged = learner.train_step.evaluated_model.state_dict()
    assert learner.train_step.evaluated_model is not model
    assert all(torch.equal(value, averaged[name]) for name, value in model.state_dict().items())
    assert learner.history[1].train_loss < 0.5


def test_a_fitted_head_takes_no_steps_that_float16_could_skip(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(30), size=32, batch_size=8)
    model = create_model("squeezenet1_1", 2, "none", head="linear")
    learner = fastpets.Learner(train, valid, model, print_epochs=False)
    learner.train_step.scaler = torch.amp.GradScaler("cpu")  # as float16 on a GPU
    learner.fit(parse_schedule("fitted"))
    assert len(learner.history) == 1

"""Weight files of others: their wrappers, prefixes and names; and what is said of those that do not fit."""

import argparse
import collections
import contextlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fastpets.augment.preprocessing import Preprocessing
from fastpets.errors import FastpetsError
from fastpets.models.classifier import create_model
from fastpets.runs.predictor import save_model
from fastpets.training import checkpoints
from fastpets.training.options import TrainingOptions
from fastpets.training.train_step import TrainStep


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1()


def with_prefix(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def assert_loaded(file: Path, state: dict[str, torch.Tensor], arch: str = "squeezenet1_1") -> None:
    model = create_model(arch, 3, file)
    assert model.pretrained
    own = getattr(model.backbone, "network", model.backbone).state_dict()
    assert own
    assert all(torch.equal(value, state[name]) for name, value in own.items())


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.backbone.", "backbone.network.", "0.model."],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_prefix_of_all_names_is_left_out(tmp_path: Path, network: nn.Module, prefix: str, suffix: str) -> None:
    state = with_prefix(prefix, network.state_dict())
    file = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, file)
    assert_loaded(file, network.state_dict())


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net", "params", 0])
def test_the_state_dict_of_a_training_checkpoint_is_found(
    tmp_path: Path, network: nn.Module, wrapper: str | int
) -> None:
    momentum = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.zeros(2, 3, 64, 64)).sum().backward()
    momentum.step()
    contents = {
        "epoch": 3,
        "metric": np.float64(0.5),
        "args": argparse.Namespace(data=Path("x"), sizes=collections.defaultdict(list)),
        "optimizer": momentum.state_dict(),
        wrapper: with_prefix("module.", network.state_dict()),
    }
    torch.save(contents, tmp_path / "w.pth.tar")
    assert_loaded(tmp_path / "w.pth.tar", network.state_dict())
    torch.save(
        {"args": argparse.Namespace(lr=1), wrapper: network.state_dict()},
        tmp_path / "old.pth",
        _use_new_zipfile_serialization=False,
    )
    assert_loaded(tmp_path / "old.pth", network.state_dict())


@pytest.mark.parametrize("names", [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("state_dict", "ema")])
def test_averaged_weights_are_preferred_with_a_warning(
    tmp_path: Path, network: nn.Module, names: tuple[str, str]
) -> None:
    averaged = AveragedModel(network).state_dict()
    averaged = {name: value + 1 if value.is_floating_point() else value for name, value in averaged.items()}
    torch.save(dict(zip(names, (network.state_dict(), averaged), strict=True)), tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=rf"w.pth: loads {names[1]}.module.\*, not {names[0]}.\*$"):
        assert_loaded(tmp_path / "w.pth", {name: value + 1 for name, value in network.state_dict().items()})


def test_a_folder_of_a_run_its_model_and_its_checkpoints_load(tmp_path: Path) -> None:
    model = create_model("squeezenet1_1", 5, "none")
    train_step = TrainStep(model, TrainingOptions(ema=0.5), torch.device("cpu"))
    preprocessing = Preprocessing(size=(32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    save_model(tmp_path, model, arch="squeezenet1_1", classes=tuple("abcde"), preprocessing=preprocessing)
    checkpoint = checkpoints.save(tmp_path, 1, {"train_step": train_step.state_dict()})
    expected = model.backbone.state_dict()
    assert_loaded(tmp_path, expected)
    assert_loaded(tmp_path / "model.safetensors", expected)
    with pytest.warns(UserWarning, match=r"loads state.train_step.ema.module.backbone.\*, not"):
        assert_loaded(checkpoint, expected)
    loaded = create_model("squeezenet1_1", 3, tmp_path)
    assert (loaded.mean, loaded.std) == (preprocessing.mean, preprocessing.std)
    with pytest.raises(FastpetsError, match=r"a run with arch='squeezenet1_1', expected squeezenet1_0$"):
        create_model("squeezenet1_0", 3, tmp_path)
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(FastpetsError, match=r"model.json: TypeError: .*, expected a weight file or a run folder$"):
        create_model("squeezenet1_1", 3, tmp_path)
    with pytest.raises(FastpetsError, match=r"model.safetensors: no such file, expected default, none, a run folder"):
        create_model("squeezenet1_1", 3, tmp_path.parent)


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "squeezenet1_1", "efficientnet_b0"])
def test_fastais_names_are_those_of_numbered_children(tmp_path: Path, arch: str) -> None:
    """As `Learner.save` of a `vision_learner` writes them: Sequential(Sequential(*layers), head)."""
    network = torchvision.models.get_model(arch, weights=None)
    body = nn.Sequential(*list(network.children())[: -2 if hasattr(network, "avgpool") else 1])
    model = nn.Sequential(body, nn.Sequential(nn.Linear(4, 2)))
    torch.save({"model": model.state_dict(), "opt": [{"lr": 1}]}, tmp_path / "w.pth")
    assert_loaded(tmp_path / "w.pth", network.state_dict(), arch)


@pytest.mark.slow
@pytest.mark.parametrize("with_opt", [True, False])
def test_a_file_of_fastai_itself_loads(tmp_path: Path, with_opt: bool) -> None:
    vision = pytest.importorskip("fastai.vision.all")
    images = tmp_path / "images"
    images.mkdir()
    for number in range(10):
        vision.PILImage.create(np.full((40, 40, 3), number, np.uint8)).save(images / f"{'ab'[number % 2]}_{number}.png")
    files = vision.get_image_files(images)
    loaders = vision.ImageDataLoaders.from_name_re(images, files, r"(.)_\d", bs=4, num_workers=0)
    learner = vision.vision_learner(loaders, vision.resnet18, pretrained=False, path=tmp_path, model_dir=".")
    with learner.no_bar(), learner.no_logging():
        learner.fit(1)
    file = learner.save("fastai", with_opt=with_opt)
    loaded = create_model("resnet18", 3, file).backbone.state_dict()
    stored = learner.model[0].state_dict()
    assert torch.equal(loaded["conv1.weight"], stored["0.weight"])
    assert torch.equal(loaded["layer4.1.bn2.running_var"], stored["7.1.bn2.running_var"])


def test_torchvisions_old_names_of_densenets_load(tmp_path: Path) -> None:
    state = torchvision.models.densenet121().state_dict()
    old = {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for name, value in state.items()}
    old = {name: value for name, value in old.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "densenet121-a639ec97.pth")
    assert_loaded(tmp_path / "densenet121-a639ec97.pth", state, "densenet121")


def test_timm_converts_names_of_a_models_authors(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    state = timm.create_model("convnext_atto", pretrained=False).state_dict()
    theirs = {}
    for name, value in state.items():  # to the names in Facebook's files
        name = name.replace("head.norm.", "norm.").replace("head.fc.", "head.")
        name = re.sub(r"^stem", "downsample_layers.0", name).replace("mlp.fc", "pwconv").replace("conv_dw", "dwconv")
        name = re.sub(r"^stages\.(\d)\.downsample", r"downsample_layers.\1", name).replace(".blocks.", ".")
        theirs[name] = value
    torch.save({"model": theirs}, tmp_path / "w.pth")
    assert_loaded(tmp_path / "w.pth", state, "timm/convnext_atto")


class RunsCode:
    """An object whose unpickling would create a folder."""

    def __init__(self, folder: Path, function: Any) -> None:
        self.folder, self.function = folder, function

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return self.function, (str(self.folder),)


@pytest.mark.parametrize("function", [os.mkdir, os.makedirs, Path.mkdir, eval, exec])
def test_no_code_in_a_weight_file_runs(tmp_path: Path, network: nn.Module, function: Any) -> None:
    made = tmp_path / "made"
    argument = made if function not in (eval, exec) else f"__import__('os').mkdir({str(made)!r})"
    torch.save({"state_dict": network.state_dict(), "x": RunsCode(argument, function)}, tmp_path / "w.pth")
    with contextlib.suppress(FastpetsError):  # of some modules torch loads not even a placeholder
        create_model("squeezenet1_1", 3, tmp_path / "w.pth")
    assert not made.exists()


def test_names_that_do_not_fit_are_listed_with_the_reason(tmp_path: Path, network: nn.Module) -> None:
    state = dict(network.state_dict())
    state["features.0.weight"] = state["features.0.weight"][:, :1]
    del state["features.3.squeeze.bias"]
    state["extra.weight"] = torch.zeros(1)
    torch.save(with_prefix("module.", state), tmp_path / "w.pth")
    message = (
        r"^weights: \S+w.pth: names that do not fit squeezenet1_1: "
        r"1 of another shape: features.0.weight \(64, 1, 3, 3\) for \(64, 3, 3, 3\); "
        r"1 missing: features.3.squeeze.bias; 1 unknown: extra.weight; expected weights of this arch$"
    )
    with pytest.raises(FastpetsError, match=message):
        create_model("squeezenet1_1", 3, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([torch.zeros(3)], "list, expected tensors by parameter name"),
        (torch.zeros(3), "Tensor, expected tensors by parameter name"),
        ({}, "dict, expected tensors by parameter name"),
        ({"epoch": 3, "state_dict": None}, "dict, expected tensors by parameter name"),
        (
            {0: torch.zeros(3), 1: torch.zeros(3)},
            "names that do not fit squeezenet1_1: 50 missing: .*; 2 unknown: 0, 1;",
        ),
        ({"a": {"b.c": torch.zeros(3)}}, "names that do not fit squeezenet1_1: 50 missing: .*; 1 unknown: a.b.c;"),
        (nn.Linear(2, 2), r"a whole model or another object, expected .*; save model.state_dict\(\) by torch.save"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_something_else_are_one_line(tmp_path: Path, contents: Any, message: str) -> None:
    torch.save(contents, tmp_path / "w.pth")
    with pytest.raises(FastpetsError, match=rf"^weights: \S+w.pth: {message}") as error:
        create_model("squeezenet1_1", 3, tmp_path / "w.pth")
    assert "\n" not in str(error.value)

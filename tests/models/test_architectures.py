"""The names of architectures, the command that lists them, and suggestions for a misspelt one."""

import pytest
import timm
import torchvision

from fastpets.cli import main
from fastpets.errors import InvalidArgumentError
from fastpets.models.architectures import architectures
from fastpets.models.classifier import create_model


def test_all_names_of_both_libraries_are_listed() -> None:
    found = architectures()
    own = {name.removeprefix("timm/") for name in found if name.startswith("timm/")}
    assert {name for name in own if "." not in name} == {*timm.list_models()}
    assert {name for name in own if "." in name} == {*timm.list_pretrained()}
    assert {*torchvision.models.list_models(module=torchvision.models)} == {*found} - {f"timm/{name}" for name in own}
    assert found["resnet18"]
    assert found["timm/resnet18"]
    assert timm.get_pretrained_cfg("resnet18").has_weights


def listed(pattern: str, capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    assert main(["models", pattern, *flags]) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]


def test_a_pattern_is_a_part_of_the_name_or_of_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed("resnet18", capsys)[0] == "resnet18"
    assert listed("timm/resnet18*", capsys) == ["timm/resnet18", "timm/resnet18d"]
    assert listed("resnet3?", capsys) == ["resnet34", "timm/resnet34"]
    assert "timm/resnet50d" in listed("resnet*d", capsys)
    assert not any("." in name for name in listed("resnet*", capsys))
    assert "timm/resnet18.a1_in1k" in listed("resnet18.", capsys)
    assert "timm/nf_resnet101" in listed("nf_resnet101", capsys)
    assert main(["models", "nf_resnet101", "--pretrained"]) == 1
    assert capsys.readouterr().err.startswith("error: pattern: no architecture matches 'nf_resnet101'")


@pytest.mark.parametrize(
    ("arch", "similar"),
    [("resnet35", "resnet34"), ("mobilenet_v3_larg", "mobilenet_v3_large"), ("timm/convnextt", "timm/convnext_tiny")],
)
def test_a_misspelt_architecture_gets_suggestions(arch: str, similar: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^arch: .*did you mean .*\b{similar}\b"):
        create_model(arch, 2, "none")


@pytest.mark.parametrize(("flag", "value"), [("--arch", "resnet35"), ("--weights", "no/such.pth")])
def test_a_model_that_is_not_there_is_reported_before_the_data_set_is_read(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("train", "lr-find"):
        assert main([command, "--data", "no/such/folder", flag, value]) == 1
        assert capsys.readouterr().err.startswith(f"error: {flag}: ")

"""Classifiers: backbones of each family, fastai's head, layer groups, pretrained weights."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from fastpets.errors import FastpetsError
from fastpets.models.classifier import create_model

# One of each family that torchvision has.
ARCHS = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_16",
    "wide_resnet50_2",
]


@pytest.mark.parametrize("arch", ARCHS)
def test_any_torchvision_architecture_gives_logits_and_layer_groups_of_all_its_parameters(arch: str) -> None:
    with torch.device("cpu" if arch.startswith("regnet") else "meta"):  # RegNet computes its widths with tensors
        model = create_model(arch, 5, "none")
        assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 5)
    grouped = [id(p) for group in model.layer_groups() for module in group for p in module.parameters()]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert model.layer_groups()[-1] == [model.head]
    assert len(model.layer_groups()) == (3 if "resne" in arch else 2)


def test_a_resnets_backbone_is_split_before_layer3() -> None:
    model = create_model("resnet18", 5, "none")
    early, late, _ = model.layer_groups()
    assert late == [model.backbone.layer3, model.backbone.layer4]
    assert model.backbone.layer2 in early


def test_a_resnets_features_are_the_maximum_and_mean_of_its_feature_map() -> None:
    model = create_model("resnet18", 5, "none").eval()
    plain = torchvision.models.resnet18()
    plain.load_state_dict(model.backbone.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 64)
    maps = nn.Sequential(*list(plain.eval().children())[:-2])(images)
    expected = torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], dim=1)
    assert torch.allclose(model.backbone(images).flatten(1), expected, atol=1e-6)


def test_the_head_is_fastais() -> None:
    head = create_model("resnet18", 37, "none").head
    layers = [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in head] == layers
    assert (head[1].p, head[5].p) == (0.25, 0.5)
    assert (head[2].in_features, head[2].out_features, head[6].out_features) == (1024, 512, 37)
    assert head[2].bias is head[6].bias is None
    assert (head[0].bias == 1e-3).all()
    assert head[2].weight.detach().std() == pytest.approx((2 / 1024) ** 0.5, rel=0.01)  # kaiming: sqrt(2 / inputs)


def test_weights_of_a_file_are_loaded_into_the_backbone(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = torchvision.models.resnet18()
    states = {"w.safetensors": source.state_dict(), "w.pth": source.state_dict()}
    states["checkpoint.pth"] = {"epoch": 3, "state_dict": source.state_dict()}
    for name, stored in states.items():
        (save_file if name == "w.safetensors" else torch.save)(stored, tmp_path / name)
        model = create_model("resnet18", 5, tmp_path / name)
        assert model.pretrained
        for key, value in model.backbone.state_dict().items():
            assert torch.equal(value, source.state_dict()[key])
    assert not create_model("resnet18", 5, "none").pretrained


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_models_that_change_the_normalisation_do_so_with_weights_of_a_file_too(tmp_path: Path, arch: str) -> None:
    """torchvision sets `transform_input` only if it loads the weights itself."""
    source = torchvision.models.get_model(arch, weights=None, init_weights=False)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    assert create_model(arch, 5, tmp_path / "w.pth").backbone.transform_input
    assert create_model(arch, 5, "none").backbone.transform_input  # as load builds a model before it loads weights


def test_real_weights_load_and_set_the_normalisation(weights: Path) -> None:
    from safetensors.torch import load_file

    model = create_model("timm/tf_efficientnet_lite0", 5, weights)
    assert (model.mean, model.std) == ((0.5,) * 3, (0.5,) * 3)
    stored = load_file(weights)
    for name, value in model.backbone.network.named_parameters():
        assert torch.equal(value, stored[name])
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    assert len(model.layer_groups()) == 2


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilenetv3_small_050"]
)
def test_timm_architectures_of_each_kind_give_logits(name: str) -> None:
    pytest.importorskip("timm")
    model = create_model(f"timm/{name}", 5, "none")
    assert all(module.training for module in model.modules())
    model.eval()
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 5)


def test_a_failed_download_of_torchvision_weights_names_the_url_and_where_to_save_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a port on which nothing listens
    with pytest.raises(FastpetsError, match=r"https://download.pytorch.org/\S+ cannot be downloaded") as error:
        create_model("resnet18", 5, "default")
    for part in (str(tmp_path / "hub" / "checkpoints" / "resnet18-"), "give another file", "weights='none'"):
        assert part in str(error.value)


def test_a_failed_download_of_timm_weights_names_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")

    def no_network(*arguments: object, **settings: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(timm, "create_model", no_network)
    monkeypatch.setattr("fastpets.models.backbones.check_connection", lambda url: None)
    with pytest.raises(
        FastpetsError,
        match=r"cannot load its weights of resnet18 \(ConnectionError: no route\); download model.safetensors from "
        r"https://huggingface.co/timm/resnet18\S* and give that file, or use weights='none'",
    ):
        create_model("timm/resnet18", 5, "default")


@pytest.mark.parametrize(
    ("arch", "source", "message"),
    [
        ("resnet19", "none", "^arch: 'resnet19', expected one of torchvision's classification models, or timm/NAME"),
        ("fasterrcnn_resnet50_fpn", "none", "expected one of torchvision's classification models"),
        ("timm/resnot18", "none", "^arch: timm/resnot18: timm has no such model"),
        ("timm/resnet18.a0", "none", r"^arch: timm/resnet18.a0: Invalid pretrained tag \(a0\) for resnet18"),
        ("timm/coatnet_0_224", "default", "^weights: timm has no pretrained weights of coatnet_0_224; give a file"),
        ("resnet18", "gone.safetensors", "^weights: gone.safetensors: no such file, expected default, none, a run"),
    ],
)
def test_unknown_architectures_and_missing_files_are_rejected(arch: str, source: str, message: str) -> None:
    with pytest.raises(FastpetsError, match=message):
        create_model(arch, 5, source)


def test_weights_of_another_architecture_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save(torchvision.models.resnet34().state_dict(), file)
    with pytest.raises(FastpetsError, match=r"do not fit resnet18: 96 unknown: layer1.2.*; expected weights of"):
        create_model("resnet18", 5, file)
    torch.save(torchvision.models.resnet50().state_dict(), file)
    with pytest.raises(
        FastpetsError,
        match=r"of another shape: layer1.0.conv1.weight \(64, 64, 1, 1\) for .* unknown: ",
    ):
        create_model("resnet18", 5, file)
    file.write_bytes(b"rubbish")
    with pytest.raises(FastpetsError, match="not readable as weights"):
        create_model("resnet18", 5, file)

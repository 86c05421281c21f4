"""Models for a learner: an architecture and its weights, any module, its layer groups; loaders follow the model."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

import fastpets
from fastpets import Learner, Loader, TrainingOptions
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.models.classifier import Classifier, create_model
from fastpets.training.parameter_groups import layer_groups
from tests.small_resnet import small_resnet

HALF = (0.5, 0.5, 0.5)
LITE = "timm/tf_efficientnet_lite0"  # its weights expect mean and std HALF


class Net(nn.Module):
    """A small network of a convolution with batch norm, and a head."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.scale = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).flatten(1) * self.scale)


def body_and_head(net: Net) -> list:
    return [[net.body, net.scale], net.head]


@pytest.fixture
def both(make_folder: Callable[..., Path]) -> tuple[Loader, Loader]:
    return fastpets.loaders(make_folder(30), size=32, batch_size=8)


@pytest.fixture(scope="module")
def lite_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(timm.create_model(LITE.removeprefix("timm/"), pretrained=False).state_dict(), file)
    return file


def quiet(*arguments: object, **settings: object) -> Learner:
    return Learner(*arguments, print_epochs=False, **settings)  # type: ignore[arg-type]


def pixels(loader: Loader) -> torch.Tensor:
    """The first batch as pixels from 0 to 1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in loader.preprocessing.normalization)
    return loader.peek().images * std + mean


def test_loaders_take_the_normalisation_of_the_model_with_the_same_pixels(
    make_folder: Callable[..., Path], lite_weights: Path
) -> None:
    train, valid = fastpets.loaders(make_folder(30), size=32, batch_size=8, cache="host")
    before = [(pixels(loader), next(iter(loader)).images.mean()) for loader in (train, valid)]  # fills the caches
    for loader in (train, valid):
        loader.set_epoch(0)
    learner = quiet(train, valid, LITE, weights=lite_weights)
    for loader, (same, mean) in zip((train, valid), before, strict=True):
        assert loader.preprocessing.normalization == (HALF, HALF)
        torch.testing.assert_close(pixels(loader), same, atol=1e-5, rtol=0)  # float32
        assert abs(loader.peek().images.mean() - mean) > 0.01
    assert torch.equal(learner.one_batch().images, train.peek().images)
    other = Loader(valid.dataset, 8, size=32)  # follows the learner that uses it
    assert learner.validate(other) == learner.validate()
    assert other.preprocessing.mean == HALF
    assert fastpets.tta(learner, 1)[0].shape == (6, 2)


def test_a_normalisation_that_the_user_gave_is_never_changed(both: tuple[Loader, Loader], lite_weights: Path) -> None:
    imagenet = [loader.like(loader.dataset, mean=IMAGENET_MEAN, std=IMAGENET_STD) for loader in both]
    expected = rf"normalises by mean .*, but the weights were .*; make the loaders with mean=\({HALF[0]}, .*std="
    for train, valid in ((imagenet[0], both[1]), (both[0], imagenet[1])):
        with pytest.raises(FastpetsError, match=expected):
            quiet(train, valid, LITE, weights=lite_weights)
    learner = quiet(*both, LITE, weights=lite_weights)
    for use in (lambda: learner.validate(imagenet[1]), lambda: learner.get_preds(imagenet[1])):
        with pytest.raises(FastpetsError, match=expected):
            use()
    assert imagenet[1].preprocessing.mean == IMAGENET_MEAN
    quiet(*(loader.like(loader.dataset, mean=HALF, std=HALF) for loader in both), LITE, weights=lite_weights)


def test_learners_of_models_with_other_normalisations_share_loaders(
    both: tuple[Loader, Loader], lite_weights: Path
) -> None:
    first = quiet(*both, LITE, weights=lite_weights)
    expected = first.validate()
    second = quiet(*both, "resnet18", weights="none")
    model = small_resnet()
    model.pretrained = True
    third = quiet(*both, model)
    assert both[0].preprocessing.mean == IMAGENET_MEAN
    assert first.validate() == expected
    assert both[1].preprocessing.mean == HALF
    third.lr_find(num_steps=10)
    assert both[0].preprocessing.mean == IMAGENET_MEAN
    assert second.normalization == (HALF, HALF)  # random weights fit what the loaders had


def test_a_module_trains_as_in_pytorch_and_keeps_its_identity(both: tuple[Loader, Loader]) -> None:
    torch.manual_seed(0)
    net = Net()
    before = copy.deepcopy(net.state_dict())
    learner = quiet(*both, net)
    assert learner.model is net
    assert all(parameter.requires_grad for parameter in net.parameters())
    learner.fit_one_cycle(2, 1e-2)
    assert not any(torch.equal(before[name], value) for name, value in net.named_parameters())
    probabilities = learner.get_preds()[0]
    net.eval()
    with torch.no_grad():
        expected = torch.cat([net(images).softmax(1) for images, _ in both[1]])
    torch.testing.assert_close(probabilities, expected)
    for other in (copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))):
        other.fit_one_cycle(1, 1e-3)


def test_a_splitter_defines_the_layer_groups_that_freeze_and_their_rates(both: tuple[Loader, Loader]) -> None:
    net = Net()
    learner = quiet(*both, net, splitter=body_and_head)
    assert all(parameter.requires_grad for parameter in net.parameters())  # as fastai's Learner
    learner.freeze()
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {"head.weight", "head.bias", "body.1.weight", "body.1.bias"}  # batch norm keeps training
    learner.fit([fastpets.Phase(name="a", epochs=1, lr=slice(1e-4, 1e-2), frozen_to=0)])
    rates = {}
    for group in learner.train_step.optimizer.param_groups:
        rates |= {id(parameter): (group["layer_group"], group["weight_decay"]) for parameter in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in net.named_parameters()}
    assert found == {
        "scale": (0, 0.01), "body.0.weight": (0, 0.01), "body.0.bias": (0, 0), "body.1.weight": (0, 0),
        "body.1.bias": (0, 0), "head.weight": (1, 0.01), "head.bias": (1, 0),
    }  # fmt: skip
    assert learner.progress.rates is None
    learner.fine_tune(1)
    assert [result.phase for result in learner.history[1:]] == ["frozen", "unfrozen"]


def test_parameters_that_the_user_has_frozen_stay_frozen(both: tuple[Loader, Loader]) -> None:
    net = Net()
    net.body[0].requires_grad_(False)
    for _ in range(2):  # the second learner trains what the first has frozen, the scale
        learner = quiet(*both, net, splitter=body_and_head)
        learner.unfreeze()
        trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
        assert trained == {name for name, _ in net.named_parameters()} - {"body.0.weight", "body.0.bias"}
        before = copy.deepcopy(net.state_dict())
        learner.fit_one_cycle(1, 1e-2)
        assert torch.equal(before["body.0.weight"], net.body[0].weight)
        assert not torch.equal(before["scale"], net.scale)
        learner.freeze()
        assert not net.scale.requires_grad
    net.head.requires_grad_(False)
    with pytest.raises(InvalidArgumentError, match=r"^freeze_to: -1: the model's parameters to train were frozen when"):
        quiet(*both, net, splitter=body_and_head).freeze()


def test_frozen_norms_of_a_split_module_are_fixed_with_bn_eval(both: tuple[Loader, Loader]) -> None:
    net = Net()
    learner = quiet(*both, net, TrainingOptions(bn="eval"), splitter=body_and_head)
    learner.freeze()
    before = copy.deepcopy(net.state_dict())
    learner.fit_one_cycle(1, 1e-2)
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("splitter", "message"),
    [
        (
            lambda net: [net.body, net.head],
            "splitter: 1 of 7 parameters are in no group or in several: scale; expected",
        ),
        (lambda net: [net, net.head], "splitter: 2 of 7 parameters are in no group or in several: head.weight, head.b"),
        (lambda net: [net, []], "splitter: groups of 7, 0 parameters"),
        (lambda net: [[net, nn.Linear(2, 2)]], "splitter: groups of 9 parameters, expected .* the model's own"),
        (lambda net: ["body", "head"], "splitter: str, expected modules, parameters or lists of these"),
    ],
)
def test_a_splitter_that_misses_parameters_is_refused(splitter: Callable, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        layer_groups(Net(), splitter)


def test_timms_and_torchvisions_own_models_train(both: tuple[Loader, Loader]) -> None:
    for model, mean in (
        (timm.create_model("tf_efficientnet_lite0", num_classes=2), HALF),
        (torchvision.models.squeezenet1_1(num_classes=2), HALF),  # says nothing of a normalisation
        (timm.create_model("resnet18", num_classes=2), IMAGENET_MEAN),
    ):
        learner = quiet(*both, model, TrainingOptions(ema=0.5))
        assert both[0].preprocessing.mean == pytest.approx(mean)
        learner.fit_one_cycle(1, 1e-3)
        assert len(learner.history) == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Net(3), r"the model, Net, gives a tensor \(2, 3\) for two images, expected logits \(2, 2\)"),
        (nn.Conv2d(3, 2, 3), r"Conv2d, gives a tensor \(2, 2, 30, 30\) for two images"),
        (nn.Linear(7, 2), r"the model, Linear, fails on images \(2, 3, 32, 32\): RuntimeError: mat1 and mat2 shapes"),
        (nn.Flatten(), "the model, Flatten, has no parameters to train"),
        (torchvision.models.inception_v3, "model: <function inception_v3.*, expected a name such as 'resnet34'"),
    ],
)
def test_a_model_that_gives_no_logits_is_one_line(both: tuple[Loader, Loader], model: nn.Module, message: str) -> None:
    with pytest.raises(FastpetsError, match=message) as raised:
        quiet(*both, model)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("sides", "initial_size"), [((64, 64), None), ((32, 64), None), ((32, 32), 8)])
def test_a_size_of_images_that_the_model_does_not_take_is_one_line(
    both: tuple[Loader, Loader], sides: tuple[int, int], initial_size: int | None
) -> None:
    """A Classifier is checked, too, with each size that its images can have."""

    class Fixed(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if images.shape[2] != 32:
                raise AssertionError("Input height (64) doesn't match model (32).")
            return super().forward(images)[:, :8]

    def model() -> Classifier:
        return Classifier(nn.Sequential(Fixed(), nn.Linear(8, 8)), 8, 2)

    accepted = model()
    before = copy.deepcopy(accepted.state_dict())
    quiet(*both, accepted)
    assert all(torch.equal(before[name], value) for name, value in accepted.state_dict().items())
    loaders = [loader.like(loader.dataset, size=side) for loader, side in zip(both, sides, strict=True)]
    with pytest.raises(
        FastpetsError, match=r"^the model, Classifier, fails on images \(2, 3, .*\): AssertionError: Inp"
    ):
        quiet(*loaders, model(), TrainingOptions(initial_size=initial_size))


def test_a_model_that_gives_more_than_logits_in_training_is_one_line(both: tuple[Loader, Loader]) -> None:
    class Auxiliary(Net):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return (logits, logits) if self.training else logits  # type: ignore[return-value]

    with pytest.raises(FastpetsError, match=r"^the model gives tuple, expected a tensor, the logits \(B, C\)"):
        quiet(*both, Auxiliary()).fit_one_cycle(1, 1e-3)


def test_weights_are_only_for_an_architecture(both: tuple[Loader, Loader], lite_weights: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^weights: .*, but the model is built already; give an arch"):
        quiet(*both, Net(), weights=lite_weights)


def test_the_head_of_a_run_is_kept_for_the_same_classes_in_any_order(
    both: tuple[Loader, Loader], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from fastpets.runs.predictor import save_model

    train, valid = both
    first = quiet(train, valid, "squeezenet1_1", weights="none")
    first.fit_one_cycle(1, 1e-3)
    save_model(tmp_path, first.model, arch="squeezenet1_1", classes=train.classes, preprocessing=valid.preprocessing)
    expected = first.validate()
    same = quiet(train, valid, "squeezenet1_1", weights=tmp_path)
    assert same.pretrained
    assert same.validate() == pytest.approx(expected)
    assert f"weights: {tmp_path}: the head is kept, since the 2 classes are the same\n" == capsys.readouterr().out
    swapped = [
        loader.like(replace(loader.dataset, classes=("kind1", "kind0"), labels=1 - loader.dataset.labels))
        for loader in both
    ]
    assert quiet(*swapped, "squeezenet1_1", weights=tmp_path).validate() == pytest.approx(expected)
    capsys.readouterr()
    others = [loader.like(replace(loader.dataset, classes=("kind0", "wolf"))) for loader in both]
    other = quiet(*others, "squeezenet1_1", weights=tmp_path)
    new = "the head is new, since the classes differ from the run's: 1 gone ('kind1'), 1 new ('wolf')"
    assert capsys.readouterr().out == f"weights: {tmp_path}: {new}\n"
    assert torch.equal(other.model.head[2].weight, create_model("squeezenet1_1", 2, "none").head[2].weight)
    body = "backbone.features.0.weight"
    assert torch.equal(other.model.state_dict()[body], first.model.state_dict()[body])

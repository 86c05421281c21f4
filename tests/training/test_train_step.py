"""One training step: precision, accumulation, clipping, averaging and losses, each against PyTorch's own."""

import copy
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.models.classifier import Classifier, create_model
from fastpets.training import parameter_groups
from fastpets.training.mixing import make_mix
from fastpets.training.options import TrainingOptions
from fastpets.training.train_step import TrainStep, inverse_frequencies, resolve_amp_dtype

CPU = torch.device("cpu")


def tiny_model() -> Classifier:
    """A model of one convolution without norm or dropout, so that a batch's gradient is the mean of its images'."""
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), 4, 3)
    model.head = nn.Sequential(nn.Linear(4, 3))
    return model


def batch(num_images: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(num_images, 3, 6, 6, generator=generator)
    return images, torch.randint(3, (num_images,), generator=generator)


def gradients(train_step: TrainStep) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in train_step.model.parameters() if parameter.grad is not None]


def test_bfloat16_autocast_computes_the_loss_in_float32() -> None:
    train_step = TrainStep(tiny_model(), TrainingOptions(amp=True, amp_dtype="bfloat16"), CPU)
    seen: list[torch.dtype] = []
    train_step.model.backbone[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert train_step.logits(batch()[0], train_step.model).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_a_step_that_the_scaler_skips_changes_nothing_and_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train_step = TrainStep(tiny_model(), TrainingOptions(ema=0.5), CPU)
    train_step.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.0**10)
    before, averaged = (
        copy.deepcopy(train_step.model.state_dict()),
        copy.deepcopy(train_step.evaluated_model.state_dict()),
    )
    train_step.backward(*batch(), weight=float("inf"))
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "item", None)  # would raise
        train_step.optimizer_step()
    assert all(torch.equal(before[name], value) for name, value in train_step.model.state_dict().items())
    assert all(torch.equal(averaged[name], value) for name, value in train_step.evaluated_model.state_dict().items())
    train_step.backward(*batch())
    train_step.optimizer_step()
    assert not any(torch.equal(before[name], value) for name, value in train_step.model.named_parameters())


def test_gradients_of_parts_of_a_batch_add_up_to_those_of_the_whole_batch() -> None:
    whole, parts = (TrainStep(tiny_model(), TrainingOptions(), CPU) for _ in range(2))
    images, labels = batch()
    whole.backward(images, labels)
    for part in (slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)):
        parts.backward(images[part], labels[part], weight=1 / 4)
    for one, other in zip(gradients(whole), gradients(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)  # sums in another order


def test_clipping_bounds_the_total_norm_and_keeps_the_direction() -> None:
    train_step = TrainStep(tiny_model(), TrainingOptions(clip_norm=1e-3), CPU)
    train_step.backward(*batch())
    free = torch.cat([gradient.flatten() for gradient in gradients(train_step)])
    seen: list[torch.Tensor] = []
    train_step.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([gradient.flatten() for gradient in gradients(train_step)]))
    )
    train_step.optimizer_step()
    assert seen[0].norm().item() == pytest.approx(1e-3, rel=1e-3)  # torch adds 1e-6 to the norm that it divides by
    torch.testing.assert_close(seen[0] / seen[0].norm(), free / free.norm())


def test_the_moving_average_follows_torchs_formula_and_is_the_evaluated_model() -> None:
    train_step = TrainStep(tiny_model(), TrainingOptions(ema=0.9), CPU)
    expected: list[torch.Tensor] | None = None
    for _ in range(4):
        train_step.step(*batch())
        now = [p.detach().double() for p in train_step.model.parameters()]
        expected = now if expected is None else [0.9 * e + 0.1 * n for e, n in zip(expected, now, strict=True)]
    assert expected is not None
    for average, value in zip(train_step.evaluated_model.parameters(), expected, strict=True):
        torch.testing.assert_close(average.detach().double(), value, rtol=1e-5, atol=1e-7)
    assert train_step.evaluated_model is not train_step.model


def test_the_loss_is_cross_entropy_with_label_smoothing_and_class_weights() -> None:
    weights = torch.tensor([1.0, 2.0, 0.5])
    train_step = TrainStep(tiny_model(), TrainingOptions(label_smoothing=0.1, class_weights=weights), CPU)
    images, labels = batch()
    logits = train_step.logits(images, train_step.model)
    # Each target is 0.9 of its label plus 0.1 spread over all classes; each class has its weight.
    targets = 0.9 * nn.functional.one_hot(labels, 3) + 0.1 / 3
    expected = -(targets * weights * logits.log_softmax(1)).sum() / weights[labels].sum()
    assert train_step.backward(images, labels).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
@pytest.mark.parametrize("num_images", [1, 2, 7])
def test_mixing_works_for_any_batch_size_and_gives_label_shares(mix: str, num_images: int) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    mixing = make_mix(mix, 3)  # type: ignore[arg-type]
    assert mixing is not None

    def recorded(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(mixing(*pair))
        return seen[-1]

    train_step = TrainStep(tiny_model(), TrainingOptions(mix=recorded), CPU)
    images, labels = batch(num_images)
    torch.manual_seed(0)
    loss = train_step.step(images, labels)
    ((mixed, shares),) = seen
    assert shares.shape == (num_images, 3)
    torch.testing.assert_close(shares.sum(1), torch.ones(num_images))
    assert mixed.shape == images.shape
    assert torch.isfinite(loss)


def test_the_default_options_are_a_plain_pytorch_step_to_the_bit() -> None:
    train_step = TrainStep(tiny_model(), TrainingOptions(), CPU)
    bare = tiny_model().to(memory_format=torch.channels_last)
    decaying = [p for name, p in bare.named_parameters() if not name.endswith("bias")]
    others = [p for name, p in bare.named_parameters() if name.endswith("bias")]
    optimizer = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.99), eps=1e-5, fused=True,
    )  # fmt: skip
    for _ in range(3):
        loss = train_step.step(*batch())
        images, labels = batch()
        expected = cross_entropy(bare(images), labels)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert torch.equal(loss, expected.detach())
    assert all(torch.equal(a, b) for a, b in zip(train_step.model.parameters(), bare.parameters(), strict=True))


def test_amp_on_a_cpu_is_bfloat16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpets.training.train_step.cpu_has_bfloat16", lambda: True)
    assert resolve_amp_dtype(CPU, "auto") is torch.bfloat16
    assert TrainStep(tiny_model(), TrainingOptions(amp=True), CPU).amp_dtype is torch.bfloat16
    monkeypatch.setattr("fastpets.training.train_step.cpu_has_bfloat16", lambda: False)
    assert resolve_amp_dtype(CPU, "auto") is None
    assert resolve_amp_dtype(CPU, "bfloat16") is torch.bfloat16
    with pytest.warns(UserWarning, match="amp: this processor has no bfloat16 instructions"):
        assert TrainStep(tiny_model(), TrainingOptions(amp=True), CPU).amp_dtype is None
    assert TrainStep(tiny_model(), TrainingOptions(), CPU).amp_dtype is None
    with pytest.raises(InvalidArgumentError, match=r"^amp_dtype: 'float16', but a CPU trains in bfloat16 or float32"):
        resolve_amp_dtype(CPU, "float16")


def test_class_weights_give_every_class_the_same_total_and_are_1_on_average() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3])
    weights = inverse_frequencies(labels, 4)
    totals = [float(weights[label]) * count for label, count in ((0, 3), (1, 1), (3, 2))]
    assert totals == pytest.approx([2.0] * 3)
    assert weights[labels].mean().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amp_dtype": "float64"}, "amp_dtype: 'float64', expected one of auto, float16, bfloat16"),
        ({"bn": "freeze"}, "bn: 'freeze', expected one of train, eval"),
        ({"mix": "blend"}, "mix: 'blend', expected one of none, mixup, cutmix, both"),
        ({"metrics": ("auc",)}, "metrics: 'auc', expected one of accuracy, top5, macro_f1, recall"),
        ({"ema": 1.5}, "ema: 1.5, expected a value from 0 to 1"),
        ({"accumulate": 0}, "accumulate: 0, expected a value from 1 to 65536"),
        ({"accumulate": 1.5}, "accumulate: 1.5, expected an integer"),
        ({"initial_size": 64.5}, "initial_size: 64.5, expected a number of pixels, or height and width"),
        ({"seed": -1}, "seed: -1, expected a value from 0 to"),
        ({"initial_size": 4}, "initial_size: 4, expected a value from 8 to 4096"),
        (
            {"initial_size": (32, 32, 3)},
            r"initial_size: \(32, 32, 3\), expected a number of pixels, or height and width",
        ),
    ],
)
def test_impossible_options_are_rejected_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        TrainingOptions(**options)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(2), r"class_weights: shape \(2,\), expected \(3,\), one weight per class"),
        ([1.0, 2.0, 3.0], r"class_weights: \[1.0, 2.0, 3.0\], expected a tensor \(3,\)"),
    ],
)
def test_other_class_weights_are_rejected(weights: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        TrainStep(tiny_model(), TrainingOptions(class_weights=weights), CPU)


def test_images_without_label_do_not_change_the_class_weights() -> None:
    labels = np.array([0, 0, 1, 2])
    assert torch.equal(inverse_frequencies(np.append(labels, -1), 3), inverse_frequencies(labels, 3))


def test_the_state_of_a_run_without_gradient_scaling_resumes_with_it() -> None:
    state = TrainStep(tiny_model(), TrainingOptions(), CPU).state_dict()
    train_step = TrainStep(tiny_model(), TrainingOptions(), CPU)
    train_step.scaler = torch.amp.GradScaler("cpu", enabled=True)
    train_step.load_state_dict(state)


@pytest.mark.parametrize(("saved", "loaded"), [(None, 0.9), (0.9, None)])
def test_a_state_with_averaged_weights_needs_the_same_option(saved: float | None, loaded: float | None) -> None:
    state = TrainStep(tiny_model(), TrainingOptions(ema=saved), CPU).state_dict()
    with pytest.raises(FastpetsError, match=r"^ema: a state with(out)? averaged weights, but the options are with"):
        TrainStep(tiny_model(), TrainingOptions(ema=loaded), CPU).load_state_dict(state)


def test_timms_norm_layers_stay_trainable_and_have_no_weight_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), timm.layers.RmsNormAct2d(4), timm.layers.SimpleNorm2d(4), nn.Linear(4, 2))
    groups = parameter_groups.layer_groups(model, lambda model: [model[:3], model[3]])
    parameter_groups.freeze(model, groups, -1, "train", set())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"1.weight", "2.weight", "3.weight", "3.bias"}
    decaying = {
        id(parameter)
        for group in parameter_groups.adamw(model, groups, 0.01).param_groups
        if group["weight_decay"]
        for parameter in group["params"]
    }
    assert {name for name, parameter in model.named_parameters() if id(parameter) in decaying} == {
        "0.weight",
        "3.weight",
    }


def test_running_statistics_of_frozen_instance_norms_are_fixed_with_bn_eval() -> None:
    model = tiny_model()
    model.backbone[1] = nn.InstanceNorm2d(4, track_running_stats=True)
    groups = parameter_groups.layer_groups(model)
    parameter_groups.train_mode(model, groups, 1, "eval")
    assert not model.backbone[1].training
    parameter_groups.train_mode(model, groups, 1, "train")
    assert model.backbone[1].training


@pytest.mark.parametrize(
    ("arch", "mix"),
    [("resnet18", "none"), ("resnet18", "mixup"), ("resnet18", "cutmix"), ("timm/efficientnet_lite0", "none")],
)
def test_activations_and_their_gradients_are_channels_last_from_the_images_to_the_head(arch: str, mix: Any) -> None:
    model = create_model(arch, 3, "none")
    train_step = TrainStep(model, TrainingOptions(mix=mix), CPU)
    found: dict[str, bool] = {}

    def record(name: str, *tensors: Any) -> None:
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and tensor.ndim == 4 and tensor.shape[2] > 1:
                found[name] = found.get(name, True) and tensor.is_contiguous(memory_format=torch.channels_last)

    def watch(name: str, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        record(name, *inputs, output)
        output.register_hook(lambda gradient: record(f"gradient of {name}", gradient))

    for name, layer in model.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, inputs, output, name=name: watch(name, inputs, output))
    train_step.backward(torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last), torch.tensor([0, 1]))
    assert len(found) > 50
    assert [name for name, is_channels_last in found.items() if not is_channels_last] == []

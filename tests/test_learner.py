"""Training: what is frozen stays, what should move moves, and the numbers that are shown are true."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import fastpets
from fastpets.errors import FastpetsError
from fastpets.learner import EpochResult, Learner, SmoothedLoss
from fastpets.model import NORM_LAYERS, Classifier, create_model

State = dict[str, torch.Tensor]


@pytest.fixture
def learner(make_folder: Callable[..., Path]) -> Learner:
    train, valid = fastpets.loaders(make_folder(30), size=32, batch_size=8)
    torch.manual_seed(0)
    model = create_model("resnet18", 2, "none")
    model.pretrained = True  # as far as freezing goes
    return Learner(train, valid, model, on_epoch_end=lambda result: None)


def state(model: Classifier) -> State:
    return {name: value.clone() for name, value in model.state_dict().items()}


def of_norms(model: Classifier) -> set[str]:
    return {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, NORM_LAYERS)
        for parameter, _ in module.named_parameters(recurse=False)
    }


def changed(before: State, after: State) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_frozen_phase_changes_the_head_and_the_norms_and_no_frozen_parameter(learner: Learner) -> None:
    before = state(learner.model)
    learner.freeze()
    learner.fit_one_cycle(1, 1e-2)
    moved = changed(before, state(learner.model))
    parameters = {name for name, _ in learner.model.named_parameters()}
    head = {name for name in parameters if name.startswith("head.")}
    assert moved & parameters == head | of_norms(learner.model)
    assert any("running_mean" in name for name in moved)  # fastai's way: batch norm goes on learning


def test_the_unfrozen_phase_changes_every_parameter(learner: Learner) -> None:
    learner.freeze()
    learner.unfreeze()
    before = state(learner.model)
    learner.fit_one_cycle(1, 1e-2)
    assert {name for name, _ in learner.model.named_parameters()} <= changed(before, state(learner.model))


def test_nothing_is_frozen_in_a_model_that_is_not_pretrained(learner: Learner) -> None:
    learner.model.pretrained = False
    learner.freeze()
    assert all(parameter.requires_grad for parameter in learner.model.parameters())


def test_fine_tune_runs_two_phases_with_fastais_rates(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    cycles: list[tuple] = []

    def fit_one_cycle(epochs: int, lr_max: float | slice, **settings: float) -> None:
        trains = sum(parameter.requires_grad for parameter in learner.model.parameters())
        cycles.append((epochs, lr_max, settings, trains))

    monkeypatch.setattr(learner, "fit_one_cycle", fit_one_cycle)
    learner.fine_tune(4, 4e-3, freeze_epochs=2)
    (frozen, unfrozen), everything = cycles, len(list(learner.model.parameters()))
    assert frozen[:3] == (2, slice(4e-3), {"pct_start": 0.99, "phase": "frozen"})
    assert unfrozen[:3] == (4, slice(2e-5, 2e-3), {"pct_start": 0.3, "div": 5.0, "phase": "unfrozen"})
    assert frozen[3] < unfrozen[3] == everything


def test_freezing_clears_the_optimizer_and_consecutive_cycles_do_not(learner: Learner) -> None:
    learner.fit_one_cycle(1, 1e-3)
    optimizer = learner.optimizer
    assert len(optimizer.state) == len(list(learner.model.parameters()))
    learner.fit_one_cycle(1, 1e-3)
    assert learner.optimizer is optimizer
    learner.freeze()
    assert len(learner.optimizer.state) == 0


def test_the_optimizer_is_fastais_adam_with_rates_by_layer_group(learner: Learner) -> None:
    from fastpets.schedule import group_rates

    rates = group_rates(slice(1e-6, 1e-4), 3)
    seen: list[list[float]] = []
    learner.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    learner.fit_one_cycle(1, slice(1e-6, 1e-4), div=25.0)
    assert len(seen) == len(learner.train)
    for group, rate in zip(learner.optimizer.param_groups, seen[0], strict=True):
        assert rate == pytest.approx(rates[group["layer_group"]] / 25)
        assert (group["eps"], group["betas"][1], group["weight_decay"] in (0, 0.01)) == (1e-5, 0.99, True)
    decaying = {id(p) for group in learner.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    undecayed = of_norms(learner.model) | {
        name for name, _ in learner.model.named_parameters() if name.endswith("bias")
    }
    assert {name for name, p in learner.model.named_parameters() if id(p) not in decaying} == undecayed


def test_validation_weighs_every_picture_alike(learner: Learner) -> None:
    learner.valid.position.batch_size = 4  # 6 pictures: the second batch is shorter
    loss, error_rate = learner.validate()
    logits, labels = [], []
    learner.model.eval()
    with torch.no_grad():
        for images, batch_labels in learner.valid:
            logits.append(learner.model(images))
            labels.append(batch_labels)
    logits, labels = torch.cat(logits), torch.cat(labels)
    assert len(labels) == 6
    assert loss == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
    assert error_rate == pytest.approx((logits.argmax(1) != labels).float().mean().item())


def test_the_training_loss_shown_is_fastais_smoothed_one() -> None:
    losses = np.random.default_rng(0).random(30)
    smoothed, average = SmoothedLoss(torch.device("cpu")), 0.0
    for number, loss in enumerate(losses, start=1):
        smoothed.update(torch.tensor(loss, dtype=torch.float32))
        average = 0.98 * average + 0.02 * loss
        # float32 rounds 2**-24 at each of the three operations of each step.
        assert smoothed.value() == pytest.approx(average / (1 - 0.98**number), rel=3 * number * 2**-24 + 1e-6)


def test_each_epoch_is_reported_once_and_kept_in_the_history(learner: Learner) -> None:
    results: list[EpochResult] = []
    learner.on_epoch_end = results.append
    learner.fine_tune(2, freeze_epochs=1)
    assert [(result.phase, result.epoch) for result in results] == [
        ("frozen", 0),
        ("unfrozen", 0),
        ("unfrozen", 1),
    ]
    assert results == learner.history
    assert all(result.seconds > 0 and result.images_per_sec > 0 for result in results)


def test_pictures_normalised_otherwise_than_the_weights_expect_are_refused(learner: Learner) -> None:
    learner.model.mean = learner.model.std = (0.5, 0.5, 0.5)
    with pytest.raises(FastpetsError, match=r"make the loaders with mean=\(0.5, 0.5, 0.5\), std="):
        Learner(learner.train, learner.valid, learner.model)
    learner.model.pretrained = False  # weights that begin at random expect nothing
    Learner(learner.train, learner.valid, learner.model)


def test_no_epochs_train_nothing(learner: Learner) -> None:
    before = state(learner.model)
    learner.fit_one_cycle(0, 1e-2)
    assert changed(before, state(learner.model)) == set()


def test_the_model_and_its_images_are_channels_last(learner: Learner) -> None:
    assert learner.model.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_autocast_computes_the_loss_in_float32(learner: Learner) -> None:
    learner.amp_dtype = torch.bfloat16
    seen: list[torch.dtype] = []
    learner.model.backbone.conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert learner._logits(torch.zeros(2, 3, 32, 32)).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_a_step_that_the_scaler_skips_changes_nothing_and_is_told(learner: Learner) -> None:
    learner.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.0**10)
    images, labels = next(iter(learner.train))
    before = state(learner.model)
    assert not learner._step(cross_entropy(learner._logits(images), labels) * float("inf"))
    assert not changed(before, state(learner.model)) & {name for name, _ in learner.model.named_parameters()}
    assert learner._step(cross_entropy(learner._logits(images), labels))


def test_two_runs_with_one_seed_end_in_the_same_weights(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    finals = []
    for _ in range(2):
        train, valid = fastpets.loaders(folder, size=32, batch_size=8, seed=3)
        torch.manual_seed(3)
        learner = Learner(train, valid, create_model("resnet18", 2, "none"), on_epoch_end=lambda result: None)
        learner.fit_one_cycle(1, 1e-3)
        finals.append(state(learner.model))
    assert changed(*finals) == set()


def test_norm_layers_of_every_kind_stay_trainable_when_frozen(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(10), size=32, batch_size=8)
    model = create_model("convnext_tiny", 2, "none")
    model.pretrained = True
    learner = Learner(train, valid, model)
    learner.freeze()
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) > 10
    trainable = {id(p) for p in model.backbone.parameters() if p.requires_grad}
    assert trainable == {id(p) for norm in norms for p in norm.parameters()}


def test_pictures_without_labels_cannot_be_trained_on(make_folder: Callable[..., Path]) -> None:
    loader = fastpets.Loader(make_folder(10), label_from="none", size=32)
    with pytest.raises(FastpetsError, match="the loader's pictures have no labels, expected one each"):
        Learner(loader, loader, create_model("resnet18", 2, "none"))


def test_batches_of_one_are_refused_with_batch_norm_and_passed_over_when_a_bad_file_makes_one(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(10)
    train, valid = fastpets.loaders(folder, size=32, batch_size=1)
    with pytest.raises(FastpetsError, match="training batches of one picture, expected two or more"):
        Learner(train, valid, create_model("resnet18", 2, "none"))
    train, valid = fastpets.loaders(folder, size=32, batch_size=2, on_bad_file="skip")
    culprit = Path(train.items.paths[0])
    culprit.write_bytes(culprit.read_bytes()[:1500])  # parses, and does not decode
    learner = Learner(train, valid, create_model("resnet18", 2, "none"), on_epoch_end=lambda result: None)
    with pytest.warns(UserWarning, match="a batch of one picture is passed over"):
        learner.fit_one_cycle(1, 1e-3)

"""The learner: which parameters a phase changes, what is validated and reported, which loaders are rejected."""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import fastpets
from fastpets.errors import BadFileError, FastpetsError, InvalidArgumentError
from fastpets.loading.prepared import PreparedEpoch
from fastpets.models.classifier import NORM_LAYERS, Classifier, create_model
from fastpets.training import distributed
from fastpets.training.checks import check_loaders
from fastpets.training.history import EpochPrinter, EpochResult
from fastpets.training.learner import Learner
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase
from fastpets.training.schedule import group_rates
from tests.callbacks import Stopped, Stops
from tests.small_resnet import RESNET34, small_resnet

State = dict[str, torch.Tensor]


@pytest.fixture
def learner(make_folder: Callable[..., Path]) -> Learner:
    train, valid = fastpets.loaders(make_folder(30), size=32, batch_size=8)
    torch.manual_seed(0)
    model = small_resnet()
    model.pretrained = True  # so that freezing has an effect
    return Learner(train, valid, model, print_epochs=False)


def state(model: Classifier) -> State:
    return {name: value.clone() for name, value in model.state_dict().items()}


def norm_parameters(model: Classifier) -> set[str]:
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
    learner.fit_one_cycle(1, 1e-2)  # a pretrained model starts frozen
    moved = changed(before, state(learner.model))
    parameters = {name for name, _ in learner.model.named_parameters()}
    head = {name for name in parameters if name.startswith("head.")}
    assert moved & parameters == head | norm_parameters(learner.model)
    assert any("running_mean" in name for name in moved)  # as in fastai, batch norm keeps training


def test_the_unfrozen_phase_changes_every_parameter(learner: Learner) -> None:
    learner.unfreeze()
    before = state(learner.model)
    learner.fit_one_cycle(1, 1e-2)
    assert {name for name, _ in learner.model.named_parameters()} <= changed(before, state(learner.model))


def test_nothing_is_frozen_in_a_model_that_is_not_pretrained(learner: Learner) -> None:
    learner.model.pretrained = False
    learner.freeze()
    assert all(parameter.requires_grad for parameter in learner.model.parameters())


def test_fine_tune_has_two_phases_with_fastais_rates(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Phase, int]] = []

    def fit_epoch(phase: Phase, scheduler: object) -> None:
        seen.append((phase, sum(parameter.requires_grad for parameter in learner.model.parameters())))
        learner.progress.epoch = phase.epochs

    monkeypatch.setattr(learner, "_fit_epoch", fit_epoch)
    learner.fine_tune(4, 4e-3, freeze_epochs=2)
    (frozen, some), (unfrozen, all_of_them) = seen
    assert frozen == Phase(name="frozen", epochs=2, lr=slice(4e-3), frozen_to=-1, pct_start=0.99)
    rates = slice(2e-5, 2e-3)
    assert unfrozen == Phase(name="unfrozen", epochs=4, lr=rates, frozen_to=0, pct_start=0.3, div=5.0)
    assert some < all_of_them == len(list(learner.model.parameters()))


def test_freezing_resets_the_optimizer_and_a_second_cycle_does_not(learner: Learner) -> None:
    learner.unfreeze()
    learner.fit_one_cycle(1, 1e-3)
    optimizer = learner.train_step.optimizer
    assert len(optimizer.state) == len(list(learner.model.parameters()))
    learner.fit_one_cycle(1, 1e-3)
    assert learner.train_step.optimizer is optimizer
    learner.freeze()
    assert len(learner.train_step.optimizer.state) == 0


def test_the_optimizer_is_fastais_adam_with_rates_by_layer_group(learner: Learner) -> None:
    rates = group_rates(slice(1e-6, 1e-4), 3)
    seen: list[list[float]] = []
    learner.train_step.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    learner.fit_one_cycle(1, slice(1e-6, 1e-4), div=25.0)
    assert len(seen) == len(learner.train)
    for group, rate in zip(learner.train_step.optimizer.param_groups, seen[0], strict=True):
        assert rate == pytest.approx(rates[group["layer_group"]] / 25)
        assert (group["eps"], group["betas"][1], group["weight_decay"] in (0, 0.01)) == (1e-5, 0.99, True)
    decaying = {
        id(p) for group in learner.train_step.optimizer.param_groups if group["weight_decay"] for p in group["params"]
    }
    undecayed = norm_parameters(learner.model) | {
        name for name, _ in learner.model.named_parameters() if name.endswith("bias")
    }
    assert {name for name, p in learner.model.named_parameters() if id(p) not in decaying} == undecayed


def test_validation_weights_every_image_equally(learner: Learner) -> None:
    learner.valid.sampler.batch_size = 4  # 6 images: the second batch is shorter
    values = learner.validate()
    logits, labels = [], []
    learner.model.eval()
    with torch.no_grad():
        for images, batch_labels in learner.valid:
            logits.append(learner.model(images))
            labels.append(batch_labels)
    logits, labels = torch.cat(logits), torch.cat(labels)
    assert len(labels) == 6
    assert values["valid_loss"] == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
    assert values["error_rate"] == pytest.approx((logits.argmax(1) != labels).float().mean().item())


def test_each_epoch_is_reported_once_and_added_to_the_history(learner: Learner) -> None:
    results: list[EpochResult] = []

    class Epochs:
        def on_epoch_end(self, learner: Learner, result: EpochResult) -> None:
            results.append(result)

    learner.callbacks.append(Epochs())
    learner.fine_tune(2, freeze_epochs=1)
    assert [(result.phase, result.epoch) for result in results] == [
        ("frozen", 0),
        ("unfrozen", 0),
        ("unfrozen", 1),
    ]
    assert results == learner.history
    assert all(result.seconds > 0 and result.images_per_sec > 0 for result in results)


def test_images_normalised_differently_from_the_weights_are_rejected(learner: Learner) -> None:
    learner.model.mean = learner.model.std = (0.5, 0.5, 0.5)
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    train, valid = (loader.like(loader.dataset, **imagenet) for loader in (learner.train, learner.valid))
    with pytest.raises(FastpetsError, match=r"make the loaders with mean=\(0.5, 0.5, 0.5\), std="):
        Learner(train, valid, learner.model)
    learner.model.pretrained = False  # random weights fit any normalisation
    Learner(train, valid, learner.model)


def test_zero_epochs_change_nothing(learner: Learner) -> None:
    before = state(learner.model)
    learner.fit_one_cycle(0, 1e-2)
    assert changed(before, state(learner.model)) == set()


def test_the_model_and_its_images_are_channels_last(learner: Learner) -> None:
    assert learner.model.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_two_runs_with_one_seed_end_in_the_same_weights(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    finals = []
    for _ in range(2):
        train, valid = fastpets.loaders(folder, size=32, batch_size=8, seed=3)
        torch.manual_seed(len(finals))  # the caller's state is neither used nor changed
        before = torch.get_rng_state()
        model = create_model("squeezenet1_1", 2, "none", seed=3)
        learner = Learner(train, valid, model, TrainingOptions(seed=3), print_epochs=False)
        learner.fit_one_cycle(1, 1e-3)
        learner.lr_find(num_steps=20)
        assert torch.equal(torch.get_rng_state(), before)
        finals.append(state(learner.model))
    assert changed(*finals) == set()


def test_norm_layers_of_frozen_groups_stay_trainable(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(10), size=32, batch_size=8)
    model = create_model("convnext_tiny", 2, "none")
    model.pretrained = True
    learner = Learner(train, valid, model)
    learner.freeze()
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) > 10
    trainable = {id(p) for p in model.backbone.parameters() if p.requires_grad}
    assert trainable == {id(p) for norm in norms for p in norm.parameters()}


def test_images_without_labels_are_rejected(make_folder: Callable[..., Path]) -> None:
    loader = fastpets.Loader(make_folder(10), label_from="none", size=32)
    with pytest.raises(FastpetsError, match="the loader's images have no labels, expected one each"):
        Learner(loader, loader, small_resnet())


def test_batch_norm_rejects_batches_of_one_image_and_skips_one_that_a_bad_file_leaves(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(10)
    train, valid = fastpets.loaders(folder, size=32, batch_size=1)
    with pytest.raises(FastpetsError, match="training batches of one image, expected two or more"):
        Learner(train, valid, small_resnet())
    train, valid = fastpets.loaders(folder, size=32, batch_size=2, on_bad_file="skip")
    bad_file = Path(train.dataset.paths[0])
    bad_file.write_bytes(bad_file.read_bytes()[:1500])  # has a good header, and does not decode
    learner = Learner(train, valid, small_resnet(), print_epochs=False)
    with pytest.warns(UserWarning, match="a batch of one image is skipped"):
        learner.fit_one_cycle(1, 1e-3)


def test_with_bn_eval_frozen_norms_change_neither_parameters_nor_statistics(
    make_folder: Callable[..., Path],
) -> None:
    train, valid = fastpets.loaders(make_folder(30), size=32, batch_size=8)
    model = small_resnet()
    model.pretrained = True
    learner = Learner(train, valid, model, TrainingOptions(bn="eval"), print_epochs=False)
    before = state(model)
    learner.freeze()
    learner.fit_one_cycle(2, 1e-2)
    moved = changed(before, state(model))
    assert {name.partition(".")[0] for name in moved} == {"head"}  # in spite of model.train() in both epochs
    assert "head.0.running_mean" in moved
    learner.unfreeze()
    learner.fit_one_cycle(1, 1e-2)
    assert "backbone.bn1.running_mean" in changed(before, state(model))


@pytest.mark.parametrize(("n", "trained"), [(0, "012"), (1, "12"), (2, "2"), (-1, "2"), (-2, "12"), (-3, "012")])
def test_freeze_to_counts_layer_groups_from_the_start_or_the_end(learner: Learner, n: int, trained: str) -> None:
    learner.freeze_to(n)
    for number, group in enumerate(learner.model.layer_groups()):
        weights = [p for module in group for p in module.parameters() if p.ndim > 1]
        assert {p.requires_grad for p in weights} == {str(number) in trained}


@pytest.mark.parametrize("n", [3, -4])
def test_freezing_all_layer_groups_is_rejected(learner: Learner, n: int) -> None:
    learner.freeze()
    before = [parameter.requires_grad for parameter in learner.model.parameters()]
    with pytest.raises(FastpetsError, match="the model has 3 layer groups, and one has to train"):
        learner.freeze_to(n)
    assert learner.train_step.frozen_to == -1
    assert [parameter.requires_grad for parameter in learner.model.parameters()] == before


def test_predictions_are_probabilities_in_the_order_of_the_images(learner: Learner) -> None:
    probabilities, labels = learner.get_preds()
    assert torch.equal(labels, torch.from_numpy(learner.valid.dataset.labels))
    assert torch.allclose(probabilities.sum(1), torch.ones(len(labels)))
    images, of_batch = learner.one_batch()
    again, same = learner.get_preds([(images, of_batch)])
    assert torch.equal(same, of_batch)
    assert again.shape == (len(of_batch), 2)
    of_training, labels_of_training = learner.get_preds(learner.train)
    assert torch.equal(labels_of_training, torch.from_numpy(learner.train.dataset.labels))
    unaugmented = learner.get_preds(learner.valid.like(learner.train.dataset, batch_size=3))[0]
    assert torch.allclose(of_training, unaugmented, atol=1e-6)
    name, label, of_first = learner.predict(learner.valid.dataset.paths[0])
    assert torch.allclose(of_first, probabilities[0], atol=1e-6)  # the batch size changes float32's rounding
    assert (name, label) == (learner.train.classes[label], int(probabilities[0].argmax()))


def test_one_batch_does_not_advance_the_loader(learner: Learner) -> None:
    first = learner.one_batch()
    assert torch.equal(next(iter(learner.train)).images, first.images)


def test_saved_weights_load_and_those_of_another_model_are_rejected(learner: Learner, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    learner.save(file)
    before = state(learner.model)
    learner.fit_one_cycle(1, 1e-2)
    learner.load(file)
    assert changed(before, state(learner.model)) == set()
    with pytest.raises(FastpetsError, match="expected the weights of a model of the same arch"):
        Learner(learner.train, learner.valid, small_resnet(blocks=RESNET34)).load(file)


def test_weights_and_states_that_are_refused_change_nothing(
    learner: Learner, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    learner.save(file)
    saved = learner.state_dict()
    other = Learner(learner.train, learner.valid, small_resnet(seed=1, blocks=RESNET34))
    before = state(other.model)
    with pytest.raises(
        FastpetsError, match=r"weights.safetensors: \d+ missing: .*; expected the weights of a model of"
    ):
        other.load(file)
    with pytest.raises(FastpetsError, match=r"^a state of another model: \d+ missing: backbone.layer1.2.conv1"):
        other.load_state_dict(saved)
    assert changed(before, state(other.model)) == set()

    def halves(model: Classifier) -> list[nn.Module]:
        return [model.backbone, model.head]

    model = small_resnet(seed=1)
    split = Learner(learner.train, learner.valid, model, splitter=halves)
    loaders = fastpets.loaders(make_folder(20, name="others"), size=32, batch_size=8)
    renamed = Learner(*loaders, model)
    before = state(model)
    with pytest.raises(
        FastpetsError, match=r"^a state of a model with layer groups of 11\+22, .*; make the learner with the s"
    ):
        split.load_state_dict(saved)
    with pytest.raises(FastpetsError, match=r"^loader state: 24 usable images, but this dataset has 16"):
        renamed.load_state_dict(saved)
    assert changed(before, state(model)) == set()
    assert split.train.sampler.epoch == learner.train.sampler.epoch


def test_the_loss_plot_has_a_point_for_each_batch_and_one_for_each_epoch(learner: Learner, tmp_path: Path) -> None:
    learner.fit_one_cycle(2, 1e-3)
    learner.plot_loss(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(learner.recorder.losses) == 2 * len(learner.train) == learner.history[-1].batches


def test_an_interrupted_fit_resumes_only_when_asked_to(learner: Learner) -> None:
    learner.callbacks = [Stops()]
    for _ in range(2):
        with pytest.raises(Stopped):
            learner.fit_one_cycle(3, 1e-3)
    assert (learner.progress.num_batches, learner.progress.epoch) == (1, 0)
    learner.callbacks = []
    learner.fit([Phase(name="rest", epochs=3, lr=1e-3)], resume=True)
    assert len(learner.recorder.losses) == 1 + 3 * len(learner.train)  # 1: of the fit that was not resumed


def test_a_finished_fit_has_nothing_to_resume(learner: Learner) -> None:
    phases = [Phase(name="a", epochs=1, lr=1e-3), Phase(name="b", epochs=1, lr=1e-3)]
    learner.fit(phases)
    other = Learner(learner.train, learner.valid, small_resnet())
    other.load_state_dict(learner.state_dict())
    for finished in (learner, other):
        finished.fit(phases, resume=True)
        assert len(finished.history) == 2
    other.fit([*phases, Phase(name="c", epochs=1, lr=1e-3)], resume=True)
    assert [result.phase for result in other.history] == ["a", "b", "c"]


def test_a_fit_that_does_not_resume_starts_with_a_whole_epoch(learner: Learner) -> None:
    learner.callbacks = [Stops()]
    with pytest.raises(Stopped):
        learner.fit_one_cycle(1, 1e-3)
    learner.callbacks = []
    learner.one_batch()  # restores the loader's state, which is within the interrupted epoch
    learner.recorder.wait()
    num_before = len(learner.recorder.losses)
    learner.fit_one_cycle(1, 1e-3)
    assert len(learner.recorder.losses) - num_before == len(learner.train) == 3


def test_an_unfinished_phase_does_not_resume_with_another_number_of_images_per_step(
    make_folder: Callable[..., Path], learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = learner.state_dict()

    learner.callbacks = [Stops()]
    with pytest.raises(Stopped):
        learner.fit_one_cycle(1, 1e-3)
    state = learner.state_dict()
    train = learner.train.like(learner.train.dataset, batch_size=4)
    other = Learner(train, learner.valid, small_resnet())
    before = other.model.head[2].weight.clone()
    with pytest.raises(
        FastpetsError, match=r"^batch_size: 4, but the state is of an unfinished phase with batch_size=8"
    ):
        other.load_state_dict(state)
    assert torch.equal(other.model.head[2].weight, before)
    other.load_state_dict(finished)
    other = Learner(learner.train, learner.valid, other.model, TrainingOptions(accumulate=2))
    with pytest.raises(FastpetsError, match=r"^accumulate: 2, but"):
        other.load_state_dict(state)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(FastpetsError, match=r"^world_size: 2, but"):
        learner.load_state_dict(state)


def test_a_validation_loss_that_is_not_a_number_is_reported(learner: Learner) -> None:
    learner.valid.sampler.batch_size = 4  # two batches
    batches = iter(range(2))
    learner.model.register_forward_hook(lambda module, inputs, output: output * math.nan if next(batches) else output)
    assert math.isnan(learner.validate()["valid_loss"])


def test_a_validation_loss_that_is_not_finite_ends_training(learner: Learner) -> None:
    learner.model.register_forward_hook(lambda module, inputs, output: output if module.training else output * math.nan)
    with pytest.raises(FastpetsError, match=r"^the validation loss is nan; use a lower lr"):
        learner.fit_one_cycle(1, 1e-3)
    assert learner.history == []


def test_a_weight_that_the_last_step_made_infinite_ends_training_before_validation(learner: Learner) -> None:
    steps = iter(range(1, 4))

    def spoil(*_: object) -> None:
        if next(steps) == len(learner.train):
            with torch.no_grad():
                learner.model.head[2].weight[0, 0] = math.inf

    learner.train_step.optimizer.register_step_post_hook(spoil)
    with pytest.raises(FastpetsError, match=r"^the weights are not finite after 3 batches: head.2.weight; use a lower"):
        learner.fit_one_cycle(1, 1e-3)
    assert (learner.history, learner.progress.is_trained) == ([], False)


def truncate(paths: Sequence[str]) -> None:
    for path in paths:
        os.truncate(path, 500)


@pytest.mark.filterwarnings("ignore:left out")
def test_an_epoch_without_an_image_that_decodes_is_one_line(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=32, batch_size=8, on_bad_file="skip")
    learner = Learner(train, valid, small_resnet())
    truncate(valid.dataset.paths)
    with pytest.raises(FastpetsError, match=r"^no validation image could be used \(.*not decoded.*\)"):
        learner.fit_one_cycle(1, 1e-3)
    truncate(train.dataset.paths)
    for train_on_nothing in (lambda: learner.fit_one_cycle(1, 1e-3), learner.lr_find):
        with pytest.raises(FastpetsError, match=r"^no training image could be used in .* epoch \(.*not decoded.*\)"):
            train_on_nothing()


def test_several_processes_may_not_leave_out_files(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for policy in ("raise", "replace"):
        valid = learner.valid.like(learner.valid.dataset, on_bad_file=policy)
        check_loaders(learner.model, learner.train, valid)
    valid = learner.valid.like(learner.valid.dataset, on_bad_file="skip")
    with pytest.raises(InvalidArgumentError, match=r"^on_bad_file: 'skip' with 2 processes.*on_bad_file='replace'$"):
        check_loaders(learner.model, learner.train, valid)


def overflow_first(learner: Learner, num_steps: int) -> None:
    """Makes the gradients of the learner's first steps infinite, as a new scale of gradients in float16 does."""
    train_step, calls = learner.train_step, iter(range(1000))
    train_step.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.0**16)
    train_step.freeze_to(0)
    backward = train_step.backward

    def overflowing(images: torch.Tensor, labels: torch.Tensor, weight: float, *, is_last: bool) -> torch.Tensor:
        return backward(images, labels, math.inf if next(calls) < num_steps else weight, is_last=is_last)

    train_step.backward = overflowing  # type: ignore[method-assign]


def test_the_schedule_starts_with_the_first_step_that_float16_does_not_skip(learner: Learner) -> None:
    learner.fit_one_cycle(2, 1e-2)
    rates = learner.recorder.rates
    other = Learner(learner.train, learner.valid, learner.model, print_epochs=False)
    overflow_first(other, 2)
    other.fit_one_cycle(2, 1e-2)
    assert other.recorder.rates == [rates[0], rates[0], *rates[:-2]]
    assert other.train_step.optimizer.state_dict()["state"][0]["step"] == len(rates) - 2


def test_a_phase_of_skipped_steps_only_is_an_error(learner: Learner) -> None:
    overflow_first(learner, 1000)
    with pytest.raises(FastpetsError, match=r"^phase one cycle: the gradients of all batches overflowed in float16"):
        learner.fit_one_cycle(2, 1e-2)


def test_an_epoch_that_is_interrupted_in_validation_reports_its_times(learner: Learner) -> None:
    learner.callbacks = [Stops(at=4)]  # after three training batches
    phases = [Phase(name="a", epochs=1, lr=1e-3)]
    with pytest.raises(Stopped):
        learner.fit(phases)
    assert learner.progress.is_trained
    learner.fit(phases, resume=True)
    (result,) = learner.history
    assert len(learner.recorder.losses) == 3
    assert result.images_per_sec > 0
    assert 0 < result.input_share < 1


def test_gradients_before_a_batch_of_bad_files_are_used(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=32, batch_size=2, on_bad_file="skip")
    for item in list(train.sampler)[-2:]:  # the last batch
        file = Path(train.dataset.paths[item])
        file.write_bytes(file.read_bytes()[:1500])
    options = TrainingOptions(accumulate=4)
    learner = Learner(train, valid, small_resnet(), options, print_epochs=False)
    with pytest.warns(UserWarning, match="left out"):
        learner.fit_one_cycle(1, 1e-3)
    assert len(learner.recorder.losses) == 7
    assert learner.train_step.optimizer.state_dict()["state"][0]["step"] == 2


def test_an_overflow_in_the_first_step_gives_no_warning(learner: Learner) -> None:
    learner.train_step.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=math.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.fit_one_cycle(1, 1e-3)


def test_predictions_of_no_batches_are_empty_and_a_bad_file_is_an_error(learner: Learner, tmp_path: Path) -> None:
    probabilities, labels = learner.get_preds([])
    assert (probabilities.shape, labels.shape) == ((0, 2), (0,))
    learner.valid = learner.valid.like(learner.valid.dataset, on_bad_file="skip")
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(BadFileError, match=r"bad.jpg"):
        learner.predict(tmp_path / "bad.jpg")


def test_an_image_is_predicted_in_each_process(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fastpets.loading.sampler.resolve_ranks", lambda rank, size: (1, 2) if rank is None else (rank, size)
    )
    assert learner.predict(learner.valid.dataset.paths[0])[0] in learner.train.classes


def test_only_the_first_process_prints_epochs_by_default(
    learner: Learner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, prints in ((0, True), (1, False)):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        Learner(learner.train, learner.valid, learner.model).fit_one_cycle(1, 1e-3)
        assert ("train_loss" in capsys.readouterr().out) is prints


def test_a_heading_is_printed_above_the_first_epoch_of_a_phase_and_of_a_resumed_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def result(phase: str, epoch: int) -> EpochResult:
        return EpochResult(
            phase=phase, epoch=epoch, batches=1, train_loss=1.0, valid_loss=1.0, error_rate=0.5, metrics={},
            seconds=1.0, images_per_sec=1.0, input_share=0.0,
        )  # fmt: skip

    printer = EpochPrinter()
    for phase, epoch in (("frozen", 2), ("frozen", 3), ("unfrozen", 0), ("unfrozen", 1)):
        printer.on_epoch_end(None, result(phase, epoch))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["frozen", "epoch", "2", "3", "unfrozen", "epoch", "0", "1"]


def test_a_single_epoch_has_the_full_size_and_the_loader_keeps_it(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=64, batch_size=8)
    sizes: list[int] = []
    model = small_resnet()
    learner = Learner(train, valid, model, TrainingOptions(initial_size=32), print_epochs=False)
    model.register_forward_pre_hook(
        lambda module, inputs: sizes.append(inputs[0].shape[2]) if module.training else None
    )
    learner.fit_one_cycle(1, 1e-3)
    assert set(sizes) == {64}

    learner.callbacks = [Stops()]
    with pytest.raises(Stopped):
        learner.fit_one_cycle(3, 1e-3)
    assert sizes[-1] == 32
    assert train.preprocessing.size == (64, 64)


def test_images_grow_from_the_initial_size_to_the_loaders(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=96, batch_size=8, cache="host")
    sizes: list[tuple[int, ...]] = []
    model = small_resnet()
    learner = Learner(train, valid, model, TrainingOptions(initial_size=32), print_epochs=False)
    model.register_forward_pre_hook(lambda module, inputs: sizes.append((*inputs[0].shape[2:], module.training)))
    learner.fit([Phase(name="a", epochs=2, lr=1e-3), Phase(name="b", epochs=3, lr=1e-3)])
    assert [size[0] for size in sizes if size[2]] == [side for side in (32, 32, 64, 96, 96) for _ in range(2)]
    assert {size[:2] for size in sizes if not size[2]} == {(96, 96)}
    with pytest.raises(
        InvalidArgumentError, match=r"^initial_size: 128 x 128 px, expected at most the loader's 96 x 96"
    ):
        Learner(train, valid, model, TrainingOptions(initial_size=128))


def test_class_weights_are_computed_from_the_training_labels(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(30), size=32, batch_size=8)
    learner = Learner(train, valid, small_resnet(), TrainingOptions(class_weights=True))
    counts = np.bincount(train.dataset.labels, minlength=2)
    expected = torch.tensor(counts.sum() / (2 * counts), dtype=torch.float32)
    torch.testing.assert_close(learner.train_step.loss.weight, expected)


def test_loaders_that_fit_neither_the_model_nor_each_other_are_rejected(make_folder: Callable[..., Path]) -> None:
    folder, model = make_folder(20), small_resnet()
    train, valid = fastpets.loaders(folder, size=32, batch_size=8)
    pixels = valid.like(valid.dataset, output="uint8")
    with pytest.raises(FastpetsError, match="the loader gives uint8 pixels, expected normalised images"):
        Learner(train, pixels, model)
    other = valid.like(valid.dataset, mean=(0.1, 0.2, 0.3))
    with pytest.raises(FastpetsError, match=r"validation images by \(0.1, 0.2, 0.3\) and .*; expected the same"):
        Learner(train, other, model)
    with pytest.raises(
        FastpetsError, match="the model has 1 output, the loader 2 classes; create it with num_classes=2"
    ):
        Learner(train, valid, small_resnet(1))
    with pytest.raises(FastpetsError, match="the model has 3 outputs, the loader 2 classes; create it with num_c"):
        Learner(train, valid, small_resnet(3))
    with pytest.raises(FastpetsError, match=r"^layout: 'NHWC', expected 'NCHW' for training"):
        Learner(train, valid.like(valid.dataset, layout="NHWC"), model)
    valid.device = torch.device("meta")
    with pytest.raises(FastpetsError, match=r"^device: cpu of the training loader, meta of the validation loader"):
        Learner(train, valid, model)


def test_a_loader_that_cannot_be_validated_is_rejected(learner: Learner) -> None:
    valid = learner.valid
    paths = valid.like(list(valid.dataset.paths))  # without labels
    with pytest.raises(FastpetsError, match=r"^the loader's images have no labels, expected one each"):
        learner.validate(paths)
    assert torch.equal(learner.get_preds(paths)[0], learner.get_preds()[0])
    for use in (learner.validate, learner.get_preds):
        with pytest.raises(FastpetsError, match=r"^layout: 'NHWC', expected 'NCHW'"):
            use(valid.like(valid.dataset, layout="NHWC"))
        with pytest.raises(FastpetsError, match="the loader gives uint8 pixels, expected normalised images"):
            use(valid.like(valid.dataset, output="uint8"))
    other = valid.like(valid.dataset)
    other.device = torch.device("meta")
    with pytest.raises(FastpetsError, match=r"^device: meta of the loader, expected cpu, that of the learner"):
        learner.validate(other)


def classes_of(learner: Learner, folder: Path) -> list[str]:
    """The class that each image of a folder, in alphabetical order, has for the learner's validation."""
    label_of = dict(zip(learner.valid.dataset.paths, learner.valid.dataset.labels.tolist(), strict=True))
    return [learner.train.classes[label_of[str(path)]] for path in sorted(folder.rglob("*.jpg"))]


def test_labels_are_matched_by_class_name_whatever_validation_classes_are_missing(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder, model = make_folder(40, num_classes=5), small_resnet(5)
    train = fastpets.Loader(folder, 8, size=32, augment=True)
    of_image: dict[str, float] = {}
    for missing in ((), ("kind0",), ("kind2",), ("kind0", "kind1", "kind3"), ("kind4",)):
        part = tmp_path / "-".join(["without", *missing])
        part.mkdir()
        paths = [path for path in folder.iterdir() if path.name.partition("_")[0] not in missing]
        for path in paths:
            os.link(path, part / path.name)
        valid = fastpets.Loader(part, 7, size=32)
        assert len(valid.classes) == 5 - len(missing)
        learner = Learner(train, valid, model, TrainingOptions(metrics=("recall",)))
        assert classes_of(learner, part) == [path.name.partition("_")[0] for path in sorted(part.iterdir())]
        found = fastpets.Interpretation.from_learner(learner)
        assert found.classes == train.classes
        losses = {Path(valid.dataset.paths[i]).name: loss for i, loss in zip(found.ids, found.losses, strict=True)}
        of_image = of_image or losses
        assert losses == pytest.approx({name: of_image[name] for name in losses}, rel=1e-4)  # in other batches
        values = learner.validate()
        assert values["valid_loss"] == pytest.approx(np.mean(list(losses.values())), rel=1e-4)
        assert learner.validate(valid) == pytest.approx(values, nan_ok=True)  # a loader with its own labels
        probabilities, labels = learner.get_preds(valid)
        assert (probabilities.argmax(1) != labels).float().mean().item() == pytest.approx(values["error_rate"])


def test_the_order_of_the_validation_classes_makes_no_difference(learner: Learner) -> None:
    expected = learner.validate()
    dataset = learner.valid.dataset
    swapped = replace(dataset, classes=("kind1", "unused", "kind0"), labels=np.array([2, 0])[dataset.labels])
    valid = learner.valid.like(swapped)
    assert Learner(learner.train, valid, learner.model).validate() == expected
    assert learner.validate(valid) == expected
    assert valid.classes == ("kind1", "unused", "kind0")  # the caller's loader stays as it is


def test_validation_classes_without_training_images_are_named(learner: Learner) -> None:
    dataset = learner.valid.dataset
    other = learner.valid.like(replace(dataset, classes=("kind0", "wolf")))
    number = (dataset.labels == 1).sum()
    expected = rf"has class 'wolf', which has no training images: {number} of 6 images are of 'wolf'; expected some of"
    for use in (
        lambda: Learner(learner.train, other, learner.model),
        lambda: learner.validate(other),
        lambda: learner.get_preds(other),
    ):
        with pytest.raises(FastpetsError, match=expected + r" the 2 trained classes: 'kind0', 'kind1'$"):
            use()


def test_a_state_of_other_classes_is_refused(learner: Learner) -> None:
    state = learner.state_dict()
    renamed = learner.train.like(replace(learner.train.dataset, classes=("kind0", "wolf")), augment=True)
    valid = learner.valid.like(replace(learner.valid.dataset, classes=("kind0", "wolf")))
    other = Learner(renamed, valid, small_resnet())
    with pytest.raises(
        FastpetsError, match=r"^classes: .* 2 classes, here are 2; the first difference is 'wolf', was 'kind1'"
    ):
        other.load_state_dict(state)


def test_weights_of_other_classes_of_the_same_number_are_refused(
    learner: Learner, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    file = tmp_path / "ab.safetensors"
    learner.save(file)
    for names in (("cat", "dog"), ("kind1", "kind0")):
        train, valid = (
            loader.like(replace(loader.dataset, classes=names), augment=True)
            for loader in (learner.train, learner.valid)
        )
        different = rf"of 2 classes, here are 2; the first difference is '{names[0]}', was 'kind0'; "
        with pytest.raises(FastpetsError, match=r"^the model was made for other classes: the weights are " + different):
            Learner(train, valid, learner.model)
        other = Learner(train, valid, small_resnet(seed=1))
        before = state(other.model)
        with pytest.raises(FastpetsError, match=different + "expected the weights of a model of the same arch and cl"):
            other.load(file)
        assert changed(before, state(other.model)) == set()
    Learner(learner.train, learner.valid, learner.model).load(file)
    assert create_model("resnet18", 2, "none", classes=["a", "b"]).classes == ("a", "b")


def test_a_pretrained_model_starts_frozen_for_the_rate_finder_and_the_first_cycle(learner: Learner) -> None:
    """As fastai's vision_learner: the chapter's lr_find and first fit_one_cycle train the head and the norm layers."""
    head = {id(p) for p in learner.model.head.parameters()}
    norms = norm_parameters(learner.model)

    def trainable() -> set[str]:
        return {name for name, p in learner.model.named_parameters() if p.requires_grad and id(p) not in head}

    assert trainable() == {name for name in norms if name.startswith("backbone")}
    learner.lr_find(num_steps=10)
    assert trainable() == {name for name in norms if name.startswith("backbone")}
    learner.unfreeze()
    assert len(trainable()) + len(head) == len(list(learner.model.parameters()))
    learner.lr_find(num_steps=10)
    assert len(trainable()) + len(head) == len(list(learner.model.parameters()))


def test_epochs_are_prepared_beside_validation_and_change_nothing(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, prepare = make_folder(30), fastpets.Loader.prepare
    losses: list[list[float]] = []
    num_taken: list[int] = []
    batches = PreparedEpoch.batches
    monkeypatch.setattr(PreparedEpoch, "batches", lambda self: num_taken.append(1) or batches(self))
    for do in (prepare, lambda loader: None):
        prepared: list[fastpets.Loader] = []
        monkeypatch.setattr(fastpets.Loader, "prepare", lambda self, p=prepared, do=do: p.append(self) or do(self))
        loaders = fastpets.loaders(folder, size=32, batch_size=8)
        learner = Learner(*loaders, small_resnet(), print_epochs=False)
        learner.fit_one_cycle(3, 1e-3)
        assert prepared == [*loaders[::-1]] * 2 + [loaders[1]]
        assert all(loader._prepared is None for loader in loaders)
        losses.append([each.valid_loss for each in learner.history])
    assert losses[0] == losses[1]
    assert len(num_taken) == 5


def test_a_fit_that_fails_ends_prepared_epochs(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise FastpetsError("after the last step")

    monkeypatch.setattr("fastpets.training.checks.check_weights", fail)
    with pytest.raises(FastpetsError, match="after the last step"):
        learner.fit_one_cycle(1, 1e-3)
    assert learner.valid._prepared is None

"""A fastai Learner."""

from pathlib import Path
from typing import Any

import pytest
import torch

import fastpets
from fastpets import Loader
from fastpets.data.splits import train_valid_datasets
from tests.clients.batch_recorder import BatchRecorder, MakeLoaders, check_passes, mean_loss

pytest.importorskip("fastai", reason="fastai is not installed; it comes with the extra clients")


def test_a_fit_has_each_batch_of_each_epoch_once(
    make_loaders: MakeLoaders, model: torch.nn.Module, tmp_path: Path
) -> None:
    from fastai.vision.all import DataLoaders, Learner

    train, valid = make_loaders()
    criterion = BatchRecorder(model)
    learner = Learner(DataLoaders(train, valid), model, loss_func=criterion, path=tmp_path)
    with learner.no_bar(), learner.no_logging():
        learner.fit(2, 1e-2)
    passes = criterion.passes()
    check_passes(passes, *make_loaders())
    criterion.check_learning()
    assert learner.recorder.values[-1][1] == pytest.approx(mean_loss(passes[-1]), rel=1e-4)


@pytest.mark.parametrize("seed", [42, 7])
def test_the_split_fastai_has_the_validation_images_of_its_random_splitter(
    pets: Path, seed: int, tmp_path: Path
) -> None:
    from fastai.vision.all import RandomSplitter, get_image_files

    nested = tmp_path / "nested"  # folders and names as fastai takes and leaves them
    for number, path in enumerate(sorted(pets.iterdir())):
        link = nested / ("", "a", ".b", "c/d")[number % 4] / (f".{path.name}" if number % 7 == 0 else path.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    (nested / "notes.txt").touch()
    for folder in (pets, nested):
        files = get_image_files(folder)
        expected = [{str(files[i]) for i in part} for part in RandomSplitter(valid_pct=0.2, seed=seed)(files)]
        for source in (folder, list(files)):
            label = {"label_from": "name"}
            train, valid = train_valid_datasets(source, split="fastai", split_seed=seed, on_bad_file="skip", **label)
            assert [set(train.paths), set(valid.paths)] == expected


def test_the_split_fastai_of_a_table_is_that_of_its_data_frame(tmp_path: Path) -> None:
    from fastai.vision.all import RandomSplitter

    path = tmp_path / "labels.csv"
    path.write_text("file,label\n" + "".join(f"{n}.jpg,{'cat' if n % 3 else 'dog'}\n" for n in range(100)))
    _, valid = train_valid_datasets(path, split="fastai", valid_share=0.3, on_bad_file="skip")
    expected = RandomSplitter(valid_pct=0.3, seed=42)(list(range(100)))[1]
    assert [int(Path(path).stem) for path in valid.paths] == sorted(map(int, expected))


@pytest.fixture
def learner(make_loaders: MakeLoaders, model: torch.nn.Module, tmp_path: Path) -> Any:
    from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner

    learner = Learner(DataLoaders(*make_loaders()), model, loss_func=CrossEntropyLossFlat(), path=tmp_path)
    with learner.no_bar(), learner.no_logging():
        learner.fit(1, 1e-2)
        yield learner


def logits(model: torch.nn.Module, loader: Loader) -> tuple[torch.Tensor, torch.Tensor]:
    model.eval()
    with torch.no_grad():
        return tuple(map(torch.cat, zip(*((model(images), labels) for images, labels in loader), strict=True)))


def test_get_preds_needs_no_loader(learner: Any, make_loaders: MakeLoaders) -> None:
    expected, labels = logits(learner.model, make_loaders()[1])
    probabilities, targets = learner.get_preds()
    assert torch.equal(targets, labels)
    torch.testing.assert_close(probabilities, expected.softmax(1))


def test_summary_lists_the_layers(learner: Any) -> None:
    assert "Conv2d" in learner.summary()
    assert "4 x 8 x 8 x 8" in learner.summary()


def test_classification_interpretation_counts_and_finds_the_highest_losses(
    learner: Any, make_loaders: MakeLoaders
) -> None:
    from fastai.vision.all import ClassificationInterpretation

    valid = make_loaders()[1]
    expected, labels = logits(learner.model, valid)
    interpretation = ClassificationInterpretation.from_learner(learner)
    predicted = expected.argmax(1)
    matrix = torch.zeros(len(valid.classes), len(valid.classes), dtype=torch.int64)
    matrix.index_put_((labels, predicted), torch.tensor(1), accumulate=True)
    assert (interpretation.confusion_matrix() == matrix.numpy()).all()
    names = {(valid.classes[a], valid.classes[p]) for a, p in zip(labels, predicted, strict=True) if a != p}
    assert {(actual, found) for actual, found, _ in interpretation.most_confused()} == names
    interpretation.print_classification_report()
    interpretation.plot_confusion_matrix()
    losses = torch.nn.functional.cross_entropy(expected, labels, reduction="none")
    torch.testing.assert_close(torch.as_tensor(interpretation.top_losses(3)[0]), losses.topk(3).values)


def test_the_documented_calls_replace_predict_tta_and_plot_top_losses(learner: Any, make_loaders: MakeLoaders) -> None:
    _, valid = make_loaders()
    expected, _ = logits(learner.model, valid)
    path = valid.dataset.paths[2]
    probabilities = learner.get_preds(dl=[(valid.like([path]).peek().images,)])[0][0]
    torch.testing.assert_close(probabilities, expected.softmax(1)[2])
    augmented = valid.new(augment=True, shuffle=False, drop_last=False)
    versions = torch.stack([learner.get_preds(dl=augmented)[0] for _ in range(4)])
    assert len(versions.unique(dim=0)) == 4
    preds, labels = learner.get_preds()
    assert torch.lerp(versions.mean(0), preds, 0.25).shape == (len(labels), len(valid.classes))
    interpretation = fastpets.Interpretation.of(valid, learner.model.eval())
    assert [loss.path for loss in interpretation.top_losses(3)]


@pytest.mark.parametrize("name", ["predict", "tta", "show_results"])
def test_the_calls_that_are_documented_as_unsupported_fail(learner: Any, name: str) -> None:
    arguments = [learner.dls.valid.dataset.paths[0]] if name == "predict" else []
    with pytest.raises((AttributeError, TypeError)):
        getattr(learner, name)(*arguments)

"""Wrong labels: confident learning, compared with cleanlab; deliberately swapped labels are found."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastpets
from fastpets.analysis.confident_learning import find_suspects
from fastpets.analysis.interpretation import Interpretation
from fastpets.analysis.suspects import write_suspects
from fastpets.errors import FastpetsError
from tests.browser import complaints
from tests.images import drawing


@pytest.mark.parametrize("num_classes", [2, 5, 37])
def test_the_suspects_and_their_order_are_cleanlabs(num_classes: int) -> None:
    pytest.importorskip("cleanlab")
    from cleanlab.filter import find_label_issues

    random = np.random.default_rng(num_classes)
    found_any = 0
    for sharpness in (0.5, 2, 8):
        labels = np.append(np.arange(num_classes), random.integers(0, num_classes, 500))
        logits = random.normal(size=(len(labels), num_classes))
        logits[np.arange(len(labels)), labels] += 1
        probabilities = np.exp(sharpness * logits)
        probabilities /= probabilities.sum(1, keepdims=True)
        labels[num_classes::10] = random.integers(0, num_classes, len(labels[num_classes::10]))
        expected = find_label_issues(
            labels,
            probabilities,
            filter_by="confident_learning",
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
        found = find_suspects(probabilities, labels)
        assert found.places.tolist() == expected.tolist()
        assert (found.suggested != labels[found.places]).all()
        assert (found.suggested == probabilities[found.places].argmax(1)).all()
        found_any += len(expected)
    assert found_any > 0


def test_a_class_without_images_is_no_suggestion() -> None:
    probabilities = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.0, 0.05, 0.95]])
    assert 2 not in find_suspects(probabilities, np.array([0, 1, 0])).suggested


def swapped(folder: Path, num_images: int = 80) -> set[str]:
    """Draws two classes that differ in colour into a folder, and returns the files with the other class's name."""
    wrong = set()
    folder.mkdir()
    for number in range(num_images):
        kind = number % 2
        is_wrong = number % 16 in (4, 11)
        name = f"{('dark', 'light')[kind ^ is_wrong]}_{number}.jpg"
        drawing(40, 50, seed=number).point(lambda value, kind=kind: value // 3 + 150 * kind).save(folder / name)
        wrong |= {name} if is_wrong else set()
    return wrong


def brightness(loader: fastpets.Loader) -> np.ndarray:
    """Probabilities (N, 2) of dark and light, of models that have not seen the image: logistic in its brightness."""
    means = np.concatenate([batch.images.mean((1, 2, 3)).numpy() for batch in loader])
    light = 1 / (1 + np.exp(-20 * (means - means.mean())))
    return np.stack([1 - light, light], 1)


def test_swapped_labels_are_found_and_written(tmp_path: Path, browser: Any) -> None:
    wrong = swapped(tmp_path / "images")
    loader = fastpets.Loader(tmp_path / "images", size=16, batch_size=32)
    found = Interpretation.from_predictions(loader, brightness(loader))
    suspects = write_suspects(tmp_path, "a run", {"training": found})
    assert {Path(suspect.file).name for suspect in suspects} == wrong
    with open(tmp_path / "suspects.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [suspect.file for suspect in suspects]
    for row in rows:
        assert Path(row["file"]).name.split("_")[0] == row["label"] != row["suggested"]
        assert float(row["label_probability"]) < float(row["suggested_probability"])
    page = tmp_path / "suspects.html"
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page.read_text())
    browser.get(page.as_uri())
    texts = browser.execute_script(
        "return [...document.querySelectorAll('#suspects figcaption')].map(e => e.textContent)"
    )
    assert len(texts) == len(wrong)
    assert all(any(name in text for text in texts) for name in wrong)
    script = "const field = document.querySelector('input'); field.value = arguments[0]; field.oninput();"
    browser.execute_script(script, min(wrong))
    assert len(browser.execute_script("return [...document.querySelectorAll('#suspects img')]")) == 1
    assert complaints(browser) == []


def test_predictions_of_another_shape_are_refused(make_folder: Callable[..., Path]) -> None:
    loader = fastpets.Loader(make_folder(10), size=16)
    with pytest.raises(FastpetsError, match=r"shape \(10, 3\), expected \(10, 2\)"):
        Interpretation.from_predictions(loader, np.full((10, 3), 1 / 3))


def test_training_images_are_predicted_in_order_and_unaugmented(trained_run: Path, tmp_path: Path) -> None:
    found = Interpretation.from_run(trained_run, device="cpu", part="train")
    assert found.ids.tolist() == list(range(48))
    again = Interpretation.from_run(trained_run, device="cpu", part="train")
    assert found.probabilities.tolist() == again.probabilities.tolist()
    valid = Interpretation.from_run(trained_run, device="cpu")
    assert not set(found.loader.dataset.paths) & set(valid.loader.dataset.paths)


def test_the_command_writes_both_files(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from fastpets.cli import main

    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    assert main(["suspects", str(run), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^\d+ suspects among 48 training and 12 validation images: their labels may be wrong", printed)
    rows = list(csv.DictReader((run / "suspects.csv").open()))
    page = (run / "suspects.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert len(rows) == len(data["suspects"]) == int(printed.split()[0])
    assert main(["suspects", str(run), "--part", "valid", "--out", str(tmp_path / "new" / "folder")]) == 0
    assert all(row["part"] == "validation" for row in csv.DictReader((tmp_path / "new/folder/suspects.csv").open()))


@pytest.mark.parametrize("num_epochs", [0, 5])
def test_suspects_of_a_model_that_is_mostly_wrong_come_with_a_warning(
    num_epochs: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from fastpets.cli import main

    swapped(tmp_path / "images")
    train, valid = fastpets.loaders(tmp_path / "images", size=32, batch_size=8)
    learner = fastpets.Learner(train, valid, "resnet18", weights="none", print_epochs=False)
    learner.fit_one_cycle(num_epochs, 1e-3)
    learner.export(tmp_path / "run")
    is_wrong = learner.validate()["error_rate"] > 0.3
    assert is_wrong == (num_epochs == 0)
    assert main(["suspects", str(tmp_path / "run"), "--part", "valid"]) == 0
    assert ("most of the suspects are its own mistakes; train a better one" in capsys.readouterr().err) == is_wrong


@pytest.mark.slow
def test_the_command_finds_swapped_labels_with_a_trained_model(tmp_path: Path) -> None:
    from fastpets.cli import main

    wrong = swapped(tmp_path / "images")
    flags = ["--arch", "resnet18", "--weights", "none", "--size", "32", "--batch-size", "8", "--device", "cpu"]
    flags += ["--augment", "none", "--schedule", "unfrozen 5 1e-3", "--label-smoothing", "0.2"]
    run = tmp_path / "run"
    assert main(["train", "--data", str(tmp_path / "images"), *flags, "--out", str(run)]) == 0
    assert main(["suspects", str(run), "--device", "cpu"]) == 0
    found = {Path(row["file"]).name for row in csv.DictReader((run / "suspects.csv").open())}
    assert len(found & wrong) >= 0.8 * len(wrong)
    assert len(found - wrong) <= 0.1 * 80

"""A learner's export, which commands and `load` take as they take a run folder."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import fastpets
from fastpets.cli import main
from fastpets.errors import FastpetsError
from fastpets.training import distributed
from fastpets.training.learner import Learner

FILES = "config.json images.parquet lr_finder.csv lr_finder.png metrics.csv model.json model.safetensors"


def trained(folder: Path) -> Learner:
    train, valid = fastpets.loaders(folder, size=32, batch_size=4, device="cpu")
    learner = Learner(train, valid, "squeezenet1_1", weights="none", print_epochs=False)
    learner.lr_find(num_steps=20)
    learner.fit_one_cycle(1, 1e-3)
    return learner


def test_an_export_is_taken_where_a_run_folder_is(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner, out = trained(make_folder(20)), tmp_path / "out"
    learner.export(out)
    assert sorted(file.name for file in out.iterdir()) == sorted([*FILES.split(), "report.html", "steps.csv"])
    expected, labels = learner.get_preds()

    predictor = fastpets.load(out, "cpu")
    paths = list(learner.valid.dataset.paths)
    found, _ = predictor.probabilities_of(paths)
    assert torch.allclose(torch.stack([found[path] for path in paths]), expected, atol=1e-5)

    interpretation = fastpets.Interpretation.from_run(out, "cpu")
    assert interpretation.labels.tolist() == labels.tolist()
    assert torch.allclose(torch.from_numpy(interpretation.probabilities).float(), expected, atol=1e-5)

    image = str(learner.valid.dataset.paths[0])
    for command in (["predict", str(out), image], ["suspects", str(out)], ["export", str(out), "--format", "torch"]):
        assert main(command) == 0, capsys.readouterr().err
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert "squeezenet1_1, from random weights, 32 x 32 px" in (out / "report.html").read_text()


def test_a_report_is_written_without_a_model(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    learner = trained(make_folder(20))
    learner.report(tmp_path / "page")
    names = {file.name for file in (tmp_path / "page").iterdir()}
    assert names == {*FILES.split(), "report.html", "steps.csv"} - {"model.json", "model.safetensors"}
    assert "squeezenet1_1, from random weights, 32 x 32 px" in (tmp_path / "page" / "report.html").read_text()
    learner.report(tmp_path / "page")  # again
    with pytest.raises(FastpetsError, match="exists and is not empty"):
        learner.export(tmp_path / "page")


def test_a_report_does_not_replace_the_files_of_a_run(trained_run: Path, make_folder: Callable[..., Path]) -> None:
    before = {file: file.read_bytes() for file in trained_run.iterdir() if file.is_file()}
    with pytest.raises(FastpetsError, match=r"^out: .*trained exists and is not empty"):
        trained(make_folder(20)).report(trained_run)
    assert before == {file: file.read_bytes() for file in trained_run.iterdir() if file.is_file()}


def test_only_the_first_process_writes(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = trained(make_folder(20))
    monkeypatch.setattr(distributed, "is_first_process", lambda: False)
    learner.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_page_has_the_suggestions_of_a_sweep_of_any_length(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    learner = trained(make_folder(20))
    for num_steps in (40, 200):
        curve = learner.lr_find(num_steps=num_steps)
        learner.report(tmp_path / str(num_steps))
        page = (tmp_path / str(num_steps) / "report.html").read_text()
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
        shown = {point["name"]: point["x"] for point in data["suggestions"]}
        assert shown == pytest.approx(curve.suggestions(), rel=1e-6)


def test_a_module_of_ones_own_cannot_be_exported(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=32, batch_size=4, device="cpu")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    learner = Learner(train, valid, model, print_epochs=False)
    with pytest.raises(FastpetsError, match="the model, Sequential, is not one of create_model"):
        learner.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""Cross-validation: a run per fold, one summary, predictions of all images; an interrupted one keeps complete folds."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastpets.cli import main
from fastpets.data.dataset import ImageDataset
from fastpets.data.splits import train_valid_datasets
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.runs.config import TrainConfig, read_config
from fastpets.runs.folds import cross_validate, summary
from fastpets.runs.images import save_images
from fastpets.runs.predictions import PREDICTIONS, save_predictions

TINY = ["--arch", "squeezenet1_1", "--weights", "none", "--size", "32", "--batch-size", "4", "--device", "cpu"]
ERRORS = (0.1, 0.3, 0.2)


class Trainer:
    """Stands for training: writes what a run writes, and stops once in one of the folds if it is told so."""

    def __init__(self, stop_in: int | None = None, grows: bool = False) -> None:
        self.stop_in, self.grows, self.calls = stop_in, grows, list[TrainConfig]()

    def __call__(self, config: TrainConfig) -> int:
        self.calls.append(config)
        assert config.out is not None
        assert config.k_fold is not None
        fold = config.k_fold[0]
        config.out.mkdir(exist_ok=True)
        if fold == self.stop_in:
            (config.out / "checkpoint-00000001.pt").touch()
            return 130
        count = 12 + self.grows * fold
        images = ImageDataset([f"/x/{n}.jpg" for n in range(count)], np.zeros(count, int), ("cat",))
        is_valid = np.arange(len(images)) % 3 == fold
        save_images(config.out, *(images.select(np.flatnonzero(part)) for part in (~is_valid, is_valid)))
        (config.out / "metrics.csv").write_text(f"epoch,valid_loss,error_rate\n0,9,9\n1,1.5,{ERRORS[fold]}\n")
        dataset = ImageDataset([f"/x/{fold}{n}.jpg" for n in range(4)], np.array([0, 1, 1, -1]), ("cat", "d\u00f6g"))
        save_predictions(config.out, dataset, np.tile([0.25, 0.75], (4, 1)))
        return 0


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_each_fold_is_a_run_and_the_summary_has_their_mean_and_deviation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, out = Trainer(), tmp_path / "run"
    assert cross_validate(TrainConfig(folds=3, out=out, seed=5), trainer, is_first_process=True) == 0
    assert [(config.k_fold, config.folds, config.seed) for config in trainer.calls] == [
        ((n, 3), 0, 5) for n in (0, 1, 2)
    ]
    assert [float(row["error_rate"]) for row in rows(out / "folds.csv")] == list(ERRORS)
    printed = capsys.readouterr().out
    assert "error rate of 3 folds: mean 0.2000, standard deviation 0.1000, from 0.1000 to 0.3000" in printed
    table = pq.read_table(out / PREDICTIONS)
    assert table["fold"].to_pylist() == [0] * 4 + [1] * 4 + [2] * 4
    assert table["file"].to_pylist() == [f"/x/{fold}{n}.jpg".encode() for fold in range(3) for n in range(4)]
    assert table["class"].to_pylist()[:4] == [b"cat", "d\u00f6g".encode(), "d\u00f6g".encode(), None]
    assert table["predicted"].to_pylist() == ["d\u00f6g".encode()] * 12
    assert table["probabilities"].to_pylist()[0] == [0.25, 0.75]
    assert json.loads(table.schema.metadata[b"classes"]) == ["cat", "d\u00f6g"]


def test_a_data_set_that_changes_between_the_folds_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FastpetsError, match="fold-1: other images than those of fold 0, so that the folds overlap"):
        cross_validate(TrainConfig(folds=3, out=tmp_path / "run"), Trainer(grows=True), is_first_process=True)


@pytest.mark.parametrize("first_process", [True, False])
def test_a_resumed_cross_validation_keeps_complete_folds_and_resumes_the_interrupted_one(
    tmp_path: Path, first_process: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cross_validate(TrainConfig(folds=3, out=out), Trainer(stop_in=1), is_first_process=True) == 130
    assert f"fold 1 is not complete; resume {out} to continue with all folds" in capsys.readouterr().out
    before = (out / "fold-0" / "metrics.csv").stat().st_mtime_ns
    config, trainer = replace(TrainConfig(resume=out).defaults() or TrainConfig(), resume=out), Trainer()
    assert config.folds == 3
    assert cross_validate(config, trainer, is_first_process=first_process) == 0
    assert [(call.k_fold, call.out, call.resume) for call in trainer.calls] == [
        ((1, 3), out / "fold-1", out / "fold-1"),
        ((2, 3), out / "fold-2", None),
    ]
    assert (out / "fold-0" / "metrics.csv").stat().st_mtime_ns == before
    if first_process:
        assert [row["fold"] for row in rows(out / "folds.csv")] == ["0", "1", "2"]
        assert len(pq.read_table(out / PREDICTIONS)) == 12


def test_the_summary_of_folds_is_a_table() -> None:
    found: list[dict[str, Any]] = [
        {"fold": n, "valid_loss": "1.5", "error_rate": error} for n, error in enumerate(ERRORS)
    ]
    assert summary(found).splitlines()[:2] == [
        "fold        valid_loss  error_rate",
        "0             1.500000    0.100000",
    ]


def test_folds_of_a_run_that_define_its_split_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^folds: 1, expected a value from 2"):
        TrainConfig(folds=1)
    with pytest.raises(InvalidArgumentError, match=r"^k_fold: one fold, but folds trains on all"):
        TrainConfig(folds=3, k_fold=(0, 3))
    with pytest.raises(InvalidArgumentError, match=r"^split: 'fastai', but folds are stratified"):
        TrainConfig(folds=3, split="fastai")


def test_a_run_of_an_earlier_version_keeps_its_random_split(tmp_path: Path) -> None:
    settings = {"labels": None, "cache_dir": None, "out": None, "resume": None, "metrics": [], "epochs": 3}
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings, "resolved": {}}))
    assert read_config(tmp_path).split == "random"
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings | {"split": "auto", "k_fold": [1, 5]}}))
    assert (read_config(tmp_path).split, read_config(tmp_path).k_fold) == ("auto", (1, 5))


@pytest.mark.slow
def test_folds_train_on_drawn_images_and_resume(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_folder(13), tmp_path / "run"
    flags = ["--data", str(folder), *TINY, "--epochs", "1", "--num-workers", "1"]
    assert main(["train", *flags, "--folds", "2", "--out", str(out)]) == 0
    table = pq.read_table(out / PREDICTIONS)
    assert sorted(table["file"].to_pylist()) == sorted(str(path).encode() for path in folder.iterdir())
    for fold in range(2):
        part = table.filter(np.array(table["fold"]) == fold)
        _, valid = train_valid_datasets(folder, k_fold=(fold, 2))
        assert part["file"].to_pylist() == [path.encode() for path in valid.paths]
        assert part["class"].to_pylist() == [valid.classes[label].encode() for label in valid.labels]
        wrong = np.mean(np.array(part["class"]) != np.array(part["predicted"]))
        assert float(rows(out / "folds.csv")[fold]["error_rate"]) == pytest.approx(wrong)
    assert capsys.readouterr().out.splitlines()[-1].startswith("error rate of 2 folds: mean ")
    assert main(["suspects", str(out)]) == 0
    assert "suspects among 13 cross-validated images: their labels may be wrong" in capsys.readouterr().out
    # The first fold is complete; the second one, whose row is missing, continues from its checkpoint.
    (out / "folds.csv").write_text("\n".join((out / "folds.csv").read_text().splitlines()[:2]) + "\n")
    assert main(["train", "--resume", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "fold 0 of 2" not in printed
    assert "fold 1 of 2" in printed
    assert pq.read_table(out / PREDICTIONS).equals(table)
    assert main(["train", "--resume", str(out), "--folds", "3"]) == 1
    assert "error: --folds: 3, but the run that is resumed has 2; leave it out" in capsys.readouterr().err


def test_flags_of_a_split_are_parsed(make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [str(make_folder(20)), "--k-fold", "1", "4"]
    assert main(["summary", *flags]) == 0
    assert "15" in capsys.readouterr().out
    assert main(["summary", *flags, "--valid-share", "0.3"]) == 1
    assert "error: --valid-share: 0.3, but a fold's share is 1 / 4; leave it out" in capsys.readouterr().err

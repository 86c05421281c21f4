"""Resuming a run elsewhere: in another folder, with moved images, without its weights file; and what is refused."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from fastpets.cli import main
from fastpets.runs.config import TrainConfig, with_absolute_paths
from fastpets.training.checkpoints import list_checkpoints
from tests.images import drawing

FLAGS = ["--arch", "squeezenet1_1", "--size", "32", "--batch-size", "4", "--device", "cpu", "--num-workers", "1"]


def make_images(folder: Path) -> Path:
    """Makes 20 JPEGs of two classes, in two folders."""
    for number in range(20):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(40 + number, 50, seed=number).save(path)
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder with a run that stopped after its first epoch of two, and the weights of the same run to its end.

    The run was given relative paths, of its images and of its weights, which are not ImageNet's normalisation.
    """
    folder = tmp_path_factory.mktemp("stopped")
    make_images(folder / "images")
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "weights.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        weights = ["--weights", "weights.pth", "--freeze-epochs", "1", "--epochs", "1"]
        assert main(["train", "--data", "images", *FLAGS, *weights, "--out", "run"]) == 0
    whole = load_file(folder / "run" / "model.safetensors")
    list_checkpoints(folder / "run")[-1].unlink()
    return folder, whole


@pytest.fixture
def run_folder(stopped: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> Path:
    """A copy of the stopped run, whose images and weights are where they were."""
    return Path(shutil.copytree(stopped[0] / "run", tmp_path / "run"))


@pytest.mark.slow
def test_a_run_resumes_elsewhere_with_fewer_processors_and_without_its_weights_file(
    stopped: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    folder, whole = stopped
    run, elsewhere = shutil.copytree(folder / "run", tmp_path / "run"), tmp_path / "elsewhere"
    shutil.copytree(folder / "images", elsewhere / "moved")
    (folder / "weights.pth").rename(folder / "gone.pth")
    (folder / "images").rename(folder / "gone")
    command = [sys.executable, "-m", "fastpets.train", "--resume", "../run"]
    try:
        one_processor = {min(os.sched_getaffinity(0))}
        child = subprocess.run(
            [*command, "--data", "moved"],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, one_processor),
        )
        assert (child.returncode, child.stderr) == (0, "")
        again = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)  # its settings have moved, too
        assert (again.returncode, again.stderr) == (0, "")
    finally:
        (folder / "gone.pth").rename(folder / "weights.pth")
        (folder / "gone").rename(folder / "images")
    resumed = load_file(Path(run) / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_run_resumes_from_another_working_directory(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", "run"]) == 0
    assert f"model and metrics: {run_folder}" in capsys.readouterr().out
    settings = json.loads((run_folder / "config.json").read_text(encoding="utf-8"))["settings"]
    assert Path(settings["data"]).is_absolute()
    assert Path(settings["weights"]).is_absolute()
    assert settings["out"] == str(run_folder)


@pytest.mark.parametrize("change", ["renamed class", "swapped files"])
def test_other_images_are_refused_with_the_difference(
    run_folder: Path, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_images(tmp_path / "images")
    if change == "renamed class":
        (images / "dog").rename(images / "wolf")
        expected = "the class dog is now wolf"
    else:
        (images / "dog" / "1.jpg").rename(images / "x.jpg")
        (images / "cat" / "0.jpg").rename(images / "dog" / "1.jpg")
        (images / "x.jpg").rename(images / "cat" / "0.jpg")
        expected = "cat/0.jpg is "
    assert main(["train", "--resume", str(run_folder), "--data", str(images)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {images}: not the images of the run that is resumed: ")
    assert expected in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "1"], "--epochs: 1, but the run that is resumed has 2; give more, or leave it out"),
        (["--schedule", "frozen 1 1e-3"], "--schedule: frozen 1 1e-3, but the run that is resumed has None"),
        (["--no-amp"], "--amp: False, but the run that is resumed has True"),
        (["--freeze_epochs", "3"], "--freeze-epochs: 3, but the run that is resumed has 0"),
        (["--lr", "2e-3"], "--lr: 2e-3, but the run that is resumed has 1e-4"),
        (["--weights", "default"], "--weights: default, but the run that is resumed has /w.pth"),
        (["--metrics"], "--metrics: (), but the run that is resumed has ('top5',)"),
        (["--seed", "7"], "--seed: 7, but the run that is resumed has 0"),
    ],
)
def test_a_flag_that_differs_from_the_runs_is_refused_even_if_it_is_the_default(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = TrainConfig(epochs=2, freeze_epochs=0, amp=True, lr="1e-4", weights="/w.pth", metrics=("top5",))
    (tmp_path / "config.json").write_text(json.dumps({"settings": dataclasses.asdict(run), "resolved": {}}))
    (tmp_path / "checkpoint-00000001.pt").touch()
    assert main(["train", "--resume", str(tmp_path), *flags]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_flags_that_equal_the_runs_and_those_of_the_machine_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(TrainConfig(epochs=2, data="images", weights="w.pth", out=Path("run"), amp=True))
    Path("run").mkdir()
    settings = json.dumps({"settings": dataclasses.asdict(config), "resolved": {}}, default=str)
    Path("run", "config.json").write_text(settings)
    Path("run", "checkpoint-00000001.pt").touch()
    same = ["--epochs", "2", "--data", "images", "--weights", "./w.pth", "--out", "run", "--amp"]
    own = ["--device", "cpu", "--num-workers", "3", "--cache-dir", "x", "--labels", "y.csv"]
    assert main(["train", "--resume", "run", *same, *own]) == 1
    assert "checkpoint-00000001.pt: not a complete checkpoint" in capsys.readouterr().err  # which comes after the flags


def phases_of(run: Path) -> list[tuple[str, int]]:
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    return [(row["phase"], int(row["epoch"])) for row in rows]


def test_a_finished_run_says_so_and_trains_on_with_more_epochs(
    stopped: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of 1 epoch, which stopped after the frozen phase, is continued to 2, then to 4 with an interruption."""
    run = Path(shutil.copytree(stopped[0] / "run", tmp_path / "run"))
    resume = ["train", "--resume", str(run)]
    planned = [("frozen", 0), ("unfrozen", 0)]
    assert main([*resume, "--epochs", "2"]) == 0
    assert phases_of(run) == [*planned, ("continued", 0)]
    assert "nothing left" not in capsys.readouterr().out
    before = load_file(run / "model.safetensors")
    for flags in ([], ["--epochs", "2"]):  # a script that repeats its command trains no further
        assert main([*resume, *flags]) == 0
        message = "nothing left to train: all 3 epochs are done; to train for 3 more, use --epochs 5\n"
        assert message in capsys.readouterr().out
    assert all(torch.equal(value, before[name]) for name, value in load_file(run / "model.safetensors").items())
    assert main([*resume, "--epochs", "4"]) == 0
    whole, checkpoint = load_file(run / "model.safetensors"), list_checkpoints(run)[-1]
    assert phases_of(run) == [*planned, ("continued", 0), ("continued", 0), ("continued", 1)]
    rates = [float(row["lr"]) for row in csv.DictReader((run / "steps.csv").read_text().splitlines())]
    assert rates[4:8] == pytest.approx(rates[8:12])  # the cycle of one epoch begins anew, at the same rates
    checkpoint.unlink()  # as if it had been interrupted after the first of the two epochs
    assert main(resume) == 0
    resumed = load_file(run / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert main([*resume, "--epochs", "3"]) == 1
    assert "--epochs: 3, but the run that is resumed has 4; give more, or leave it out" in capsys.readouterr().err


def test_a_schedule_is_continued_by_a_longer_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, run = make_images(tmp_path / "images"), tmp_path / "run"
    schedule = ["--weights", "none", "--schedule", "unfrozen 1 1e-3"]
    assert main(["train", "--data", str(images), *FLAGS, *schedule, "--out", str(run)]) == 0
    resume = ["train", "--resume", str(run)]
    capsys.readouterr()
    assert main(resume) == 0
    out = capsys.readouterr().out
    assert (
        "nothing left to train: all 1 epochs are done; to train on, give a longer schedule, such as --schedule" in out
    )
    assert main([*resume, "--schedule", "unfrozen 1 1e-3, unfrozen 1 1e-4"]) == 0
    assert phases_of(run) == [("unfrozen", 0), ("unfrozen", 0)]
    capsys.readouterr()
    for flags in (["--epochs", "9"], ["--schedule", "unfrozen 2 1e-3"]):
        assert main([*resume, *flags]) == 1
        error = capsys.readouterr().err
        assert "to train on, give a schedule that begins with the run's, 'unfrozen 1 1e-3, unfrozen 1 1e-4'" in error
        assert error.count("\n") == 1

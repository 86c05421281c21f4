"""The command: what it prints, what it leaves, and one line for whatever is wrong."""

import csv
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastpets import train, wiring
from fastpets.config import TrainConfig, parse_size
from fastpets.model import create_model

TINY = ["--arch", "resnet18", "--weights", "none", "--size", "32", "--batch-size", "8", "--device", "cpu"]
FLAGS = (
    "data label_from label_pattern labels split_seed on_bad_file max_pixels balanced arch weights size augment presize "
    "presize_method borders supersample cache epochs freeze_epochs lr batch_size amp amp_dtype seed threads device out"
)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastpets.train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_flags_are_these() -> None:
    assert [field.name for field in dataclasses.fields(TrainConfig)] == FLAGS.split()


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), ("224x320", (224, 320)), ("64X32", (64, 32))])
def test_a_size_is_a_side_or_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["large", "1x2x3", "224x", ""])
def test_what_is_no_size_is_refused_before_anything_else(text: str) -> None:
    child = run("--size", text)
    assert child.returncode == 2
    assert "--size" in child.stderr


def test_a_run_takes_every_setting_of_how_pictures_are_seen(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    seen = ["--size", "24x40", "--augment", "trivial-geometric", "--presize", 60, "--presize-method", "pad"]
    more = ["--borders", "zeros", "--supersample", 2, "--cache", "auto"]
    child = run("--data", make_folder(20), *TINY, *seen, *more, "--epochs", 2, "--out", out)
    assert child.returncode == 0, child.stderr
    description = json.loads((out / "model.json").read_text())
    assert (description["size"], description["presize_method"], description["borders"]) == ([24, 40], "pad", "zeros")


def test_help_names_every_flag_and_waits_for_no_torch() -> None:
    code = "import sys, fastpets.train as t\ntry: t.main(['--help'])\nfinally: print('torch' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stdout.endswith("False\n")
    assert child.returncode == 0
    for flag in FLAGS.split():
        assert f"--{flag.replace('_', '-')}" in child.stdout


def test_a_run_prints_a_line_an_epoch_and_leaves_a_run_folder(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = make_folder(30), tmp_path / "run"
    (folder / "notes.txt").write_text("no picture")
    child = run("--data", folder, *TINY, "--epochs", 2, "--out", out, "--threads", 1)
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    assert "24 pictures to train on, 6 to validate, 2 classes" in child.stdout
    assert "no pictures by their names, left out (1): notes.txt" in child.stdout
    heading = [line.split() for line in child.stdout.splitlines() if "train_loss" in line]
    assert heading == [["epoch", "train_loss", "valid_loss", "error_rate", "time", "images/s"]]
    assert child.stdout.splitlines()[-1] == f"the model and its numbers are in {out}"

    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "metrics.csv",
        "model.json",
        "model.safetensors",
    ]
    config = json.loads((out / "config.json").read_text())
    assert (config["epochs"], config["threads"], config["device"], config["seed"]) == (2, 1, "cpu", 0)
    with open(out / "metrics.csv") as file:
        rows = list(csv.reader(file))
    assert ",".join(rows[0]) == "phase,epoch,train_loss,valid_loss,error_rate,seconds,images_per_sec"
    assert [row[:2] for row in rows[1:]] == [["one cycle", "0"], ["one cycle", "1"]]

    description = json.loads((out / "model.json").read_text())
    assert description["classes"] == ["kind0", "kind1"]
    assert (description["arch"], description["size"], description["presize"]) == ("resnet18", [32, 32], None)
    assert description["mean"] == pytest.approx([0.485, 0.456, 0.406])
    model = create_model(description["arch"], len(description["classes"]), "none")
    model.load_state_dict(load_file(out / "model.safetensors"))
    assert model.eval()(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_pretrained_weights_train_in_two_phases(pets: Path, weights: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pets.glob("*_1*.jpg"))[:40]:
        (few / path.name).symlink_to(path)
    flags = ["--arch", "timm/tf_efficientnet_lite0", "--weights", weights, "--size", 64, "--batch-size", 16]
    out = tmp_path / "run"
    child = run("--data", few, *flags, "--freeze-epochs", 1, "--epochs", 1, "--device", "cpu", "--out", out)
    assert child.returncode == 0, child.stderr
    with open(out / "metrics.csv") as file:
        assert [row["phase"] for row in csv.DictReader(file)] == ["frozen", "unfrozen"]
    description = json.loads((out / "model.json").read_text())
    assert (description["mean"], description["std"]) == ([0.5] * 3, [0.5] * 3)


def test_ctrl_c_keeps_what_is_finished_and_says_so(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "fastpets.train",
        "--data",
        make_folder(30),
        *TINY,
        "--epochs",
        1000,
        "--out",
        out,
    ]
    child = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "model.json").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    printed, complaints = child.communicate(timeout=60)
    assert child.returncode == 130, complaints
    assert complaints == ""
    last = printed.splitlines()[-1]
    with open(out / "metrics.csv") as file:
        num_epochs = len(list(csv.DictReader(file)))
    assert last == f"stopped after {num_epochs} whole epochs; {out} keeps the model of the last one"
    model = create_model("resnet18", 2, "none")
    model.load_state_dict(load_file(out / "model.safetensors"))
    assert not [path for path in out.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: nothing there, expected a folder of pictures"),
        (["--size", "0"], "--size: 0, expected a value from 8 to 4096"),
        (["--lr", "nan"], "--lr: nan, expected"),
        (["--device", "gpu"], "--device: 'gpu', expected auto, cpu, cuda or cuda:N"),
        (
            ["--amp", "--amp-dtype", "float16", "--device", "cpu"],
            "--amp-dtype float16: a CPU trains in bfloat16",
        ),
        (["--labels", "gone.csv"], "gone.csv: No such file"),
        (["--data", "sample", "--label-pattern", "(_)"], "classes: _; expected at least two"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_1(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(arguments) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bad_picture_stops_the_run_before_training_and_can_be_skipped(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = make_folder(30), tmp_path / "run"
    (folder / "kind0_0.jpg").write_bytes(b"")
    arguments = ["--data", str(folder), *TINY, "--epochs", "1", "--out", str(out)]
    assert train.main(arguments) == 1
    assert "kind0_0.jpg: 0 bytes, expected a picture" in capsys.readouterr().err
    assert not out.exists()
    child = run(*arguments, "--on-bad-file", "skip")
    assert child.returncode == 0
    assert child.stderr.startswith("warning: left out ")
    (row,) = csv.DictReader((out / "bad_files.csv").read_text().splitlines())
    assert row == {"file": str(folder / "kind0_0.jpg"), "problem": "0 bytes, expected a picture"}


def test_an_old_run_is_never_written_over(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "model.json").write_text("{}")
    assert train.main(["--data", str(make_folder(10)), *TINY, "--out", str(out)]) == 1
    assert "there is something already, expected a new or an empty folder" in capsys.readouterr().err
    assert (out / "model.json").read_text() == "{}"


def test_amp_on_a_cpu_is_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("fastpets.wiring.cpu_has_bfloat16", lambda: True)
    assert wiring.autocast_dtype(cpu, "auto") is torch.bfloat16
    monkeypatch.setattr("fastpets.wiring.cpu_has_bfloat16", lambda: False)
    assert wiring.autocast_dtype(cpu, "auto") is None
    assert "no bfloat16 instructions" in capsys.readouterr().out
    assert wiring.autocast_dtype(cpu, "bfloat16") is torch.bfloat16


def test_amp_trains(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    arguments = ["--data", str(make_folder(20)), *TINY, "--epochs", "1", "--amp", "--amp-dtype", "bfloat16"]
    assert train.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["amp_dtype"] == "torch.bfloat16"

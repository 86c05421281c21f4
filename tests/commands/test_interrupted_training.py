"""A training run that is interrupted and resumed gives the weights of an uninterrupted one."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastpets.cli import main
from fastpets.errors import counted
from fastpets.training.checkpoints import list_checkpoints

pytestmark = pytest.mark.slow

TINY = ["--arch", "shufflenet_v2_x0_5", "--weights", "none", "--size", "32", "--batch-size", "4", "--device", "cpu"]


_children: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    yield
    for child in _children:
        child.kill()
    _children.clear()


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fastpets.train", *map(str, arguments)]
    _children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return _children[-1]


def wait_for(found: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not found() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_interrupted_by_a_signal_resumes_to_the_same_weights(
    make_folder: Callable[..., Path], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    data, epochs = ["--data", make_folder(80), *TINY, "--mix", "mixup", "--metrics", "top5"], ["--epochs", 6]
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    assert main(["train", *map(str, [*data, *epochs, "--out", whole])]) == 0

    child = start(*data, *epochs, "--out", out)
    wait_for((out / "model.json").exists, child)
    time.sleep(0.3)  # the signal comes during an epoch, its validation, or the writing of its files
    child.send_signal(number)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == status, stderr
    assert stderr == ""
    num_epochs = len(list(csv.DictReader((out / "metrics.csv").read_text().splitlines())))
    assert 0 < num_epochs < 6
    assert f"stopped after {counted(num_epochs, 'complete epoch')}; resume with --resume {out}" in stdout
    assert not [path for path in out.iterdir() if path.name.startswith(".")]

    child = start("--resume", out)
    stdout, stderr = child.communicate(timeout=120)
    assert (child.returncode, stderr) == (0, "")
    weights = [load_file(folder / "model.safetensors") for folder in (whole, out)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert (out / "steps.csv").read_text() == (whole / "steps.csv").read_text()
    assert len(list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))) == 6


def test_a_killed_run_resumes_from_its_last_complete_epoch(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    child = start("--data", make_folder(50), *TINY, "--epochs", 200, "--out", out)
    wait_for(lambda: out.exists() and len(list_checkpoints(out)) == 2, child)
    child.kill()
    child.communicate(timeout=60)
    latest = list_checkpoints(out)[-1]
    config = json.loads((out / "config.json").read_text())
    config["settings"]["epochs"] = int(latest.stem.partition("-")[2]) // 10 + 1  # ten batches each: one more
    config["resolved"]["epochs"] = [config["settings"]["epochs"]]
    (out / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", str(latest)]) == 0
    assert f"model and metrics: {out}" in capsys.readouterr().out
    assert len(list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))) == config["settings"]["epochs"]

    assert main(["train", "--resume", str(out)]) == 0  # nothing is left to do
    assert main(["train", "--resume", str(out), "--epochs", "1"]) == 1
    assert f"--epochs: 1, but the run that is resumed has {config['settings']['epochs']}" in capsys.readouterr().err
    damaged = list_checkpoints(out)[-1]
    os.truncate(damaged, 1000)
    assert main(["train", "--resume", str(out)]) == 1
    error = capsys.readouterr().err
    assert f"--resume: {damaged}: not a complete checkpoint" in error
    assert error.count("\n") == 1
    (out / "config.json").write_text("{}")
    assert main(["train", "--resume", str(out)]) == 1
    assert "expected the settings of a run" in capsys.readouterr().err


def test_a_signal_before_training_ends_the_process(tmp_path: Path) -> None:
    child = start("--data", "sample", *TINY, "--epochs", 100, "--out", tmp_path / "run")
    time.sleep(1.5)  # while it imports libraries
    for _ in range(20):  # Python ignores an exception in a destructor, such as that of a signal
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=5)
            break
    assert child.returncode in (130, -signal.SIGINT)
    assert not (tmp_path / "run" / "model.json").exists()

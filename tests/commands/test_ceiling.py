"""`fastpets ceiling`."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastpets.cli import main

pytestmark = pytest.mark.slow


def ceiling(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastpets.ceiling", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_ceiling_prints_three_rates_and_writes_no_files(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(40)
    before = sorted(tmp_path.rglob("*"))
    tiny = ["--arch", "squeezenet1_1", "--weights", "none", "--size", 32, "--batch-size", 8, "--device", "cpu"]
    child = ceiling("--data", folder, *tiny, "--cache", "host", "--num-batches", 2, "--seconds", 0.5)
    assert child.returncode == 0, child.stderr
    names = [line.rsplit(maxsplit=1)[0].strip() for line in child.stdout.splitlines()[1:4]]
    assert names == ["loading alone", "training, batches in memory", "training, batches loaded"]
    rates = [float(line.split()[-1]) for line in child.stdout.splitlines()[1:4]]
    assert min(rates) > 0
    share = min(1, rates[2] / rates[1])
    assert abs(float(child.stdout.split("training reaches ")[1].split("%")[0]) / 100 - share) < 0.02
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_is_one_line() -> None:
    for flag, value, shown in (("--num-batches", 0, "0"), ("--seconds", -1, "-1.0")):
        child = ceiling(flag, value)
        assert (child.returncode, child.stdout) == (1, "")
        assert child.stderr.startswith(f"error: {flag}: {shown}, expected a value from ")
        assert child.stderr.count("\n") == 1


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")  # each would stop after its own number of steps
    assert main(["ceiling", "--data", "sample"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ceiling: started by torchrun with several processes, expected one")
    assert error.count("\n") == 1

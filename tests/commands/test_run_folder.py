"""What a run writes: in folders of its own, in UTF-8, the model before the tables, and nothing half-written."""

import contextlib
import csv
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partialmethod
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from fastpets.analysis import report
from fastpets.cli import main
from fastpets.errors import InvalidArgumentError
from fastpets.runs import folder as run_folder
from fastpets.runs.config import TrainConfig
from fastpets.runs.folder import RunFolder
from fastpets.training import checkpoints
from fastpets.training.checkpoints import list_checkpoints
from fastpets.training.learner import Learner
from tests.images import drawing

TINY = ["--arch", "squeezenet1_1", "--weights", "none", "--size", "32", "--batch-size", "8", "--device", "cpu"]


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `path`; skips the test where mounting is not permitted."""
    path.mkdir(exist_ok=True)
    child = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True)
    if child.returncode:
        pytest.skip(f"needs permission to mount: {child.stderr.decode()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def start(*arguments: object, **settings: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fastpets.train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def hidden(folder: Path) -> list[Path]:
    """The files of unfinished writes."""
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "2026-11-30_12-00-00")
    with ThreadPool(8) as pool:
        folders = pool.map(lambda _: run_folder.new_folder("timm/a"), range(16))
    names = ["2026-11-30_12-00-00_timm-a", *(f"2026-11-30_12-00-00_timm-a-{number}" for number in range(2, 17))]
    assert sorted(path.name for path in folders) == sorted(names)
    assert all(path.is_absolute() and path.is_dir() for path in folders)


def test_a_run_folder_has_one_writer(tmp_path: Path) -> None:
    with (
        contextlib.closing(RunFolder(tmp_path)),
        pytest.raises(InvalidArgumentError, match=rf"^out: {tmp_path}: another process is writing this run"),
    ):
        RunFolder(tmp_path, resume=True)
    RunFolder(tmp_path).close()


@pytest.mark.slow
def test_two_commands_at_once_write_two_runs(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    flags = ["--data", make_folder(20), *TINY, "--epochs", 1, "--num-workers", 1]
    children = [start(*flags, cwd=tmp_path) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all((run / "report.html").exists() for run in runs)


@pytest.mark.slow
def test_all_files_are_utf8_in_a_locale_of_ascii(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / "bilder" / ("größe", "日本")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(40, 50 + number, seed=number).save(path)
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}
    out = tmp_path / "lauf"
    more = ["--epochs", 1, "--metrics", "recall", "--out", out]
    child = start("--data", tmp_path / "bilder", *TINY, *more, env=os.environ | locale)
    _, error = child.communicate()
    assert child.returncode == 0, error
    for path in out.iterdir():
        if path.suffix in (".json", ".csv", ".html"):
            path.read_text(encoding="utf-8")
    classes = json.loads((out / "model.json").read_text(encoding="utf-8"))["classes"]
    assert {os.fsencode(name).decode() for name in classes} == {"größe", "日本"}
    assert "recall/größe" in (out / "metrics.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_table_or_a_report_that_cannot_be_written_is_a_warning(
    make_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no font")

    out, present = tmp_path / "run", []
    monkeypatch.setattr(report, "write_report", fail)
    monkeypatch.setattr("fastpets.training.lr_finder.RateCurve.plot", fail)
    monkeypatch.setattr("fastpets.training.learner.Learner.lr_find", partialmethod(Learner.lr_find, num_steps=20))
    monkeypatch.setattr("fastpets.runs.trackers.TensorBoard.log", fail)

    def save_history(run: RunFolder, history: object) -> None:
        present.append(sorted(path.name for path in run.path.iterdir()))
        (run.path / "metrics.csv").mkdir(exist_ok=True)
        original(run, history)

    original = RunFolder.save_history
    monkeypatch.setattr(RunFolder, "save_history", save_history)
    flags = ["--data", str(make_folder(20)), *TINY, "--epochs", "1", "--lr", "auto", "--track", "tensorboard"]
    assert main(["train", *flags, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    for name, reason in (
        ("metrics.csv", "Is a directory"),
        ("report.html", "ValueError: no font"),
        ("lr_finder.png", "ValueError: no font"),
        ("tensorboard", "ValueError: no font"),
    ):
        assert f"warning: {out / name}: not written ({reason}); training is not affected\n" in captured.err
    assert captured.err.count("\n") == 4
    assert f"model and metrics: {out}" in captured.out
    before_the_tables = "checkpoint-00000002.pt config.json images.parquet model.json model.safetensors tensorboard"
    assert present == [before_the_tables.split()]
    assert (out / "steps.csv").exists()
    assert not hidden(out)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_resumes_from_its_last_checkpoint(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    flags = ["--data", make_folder(20), *TINY, "--num-workers", 1, "--epochs", 4]
    with mounted(tmp_path / "disk", "size=1m") as disk:  # not even for a model of 8 MB
        child = start(*flags, "--out", disk / "run")
        _, error = child.communicate()
        assert (child.returncode, error.count("\n")) == (1, 1)
        assert error.startswith(f"error: --out: {disk / 'run'}: ")
        assert "No space left on device" in error
        assert not hidden(disk)
        assert not (disk / "run" / "model.safetensors").exists()
    whole = tmp_path / "whole"
    assert main(["train", *map(str, flags), "--out", str(whole)]) == 0
    model, checkpoint = (whole / "model.safetensors").stat().st_size, list_checkpoints(whole)[0].stat().st_size
    with mounted(tmp_path / "disk", f"size={model + 5 * checkpoint // 2}") as disk:  # for two checkpoints, not three
        child = start(*flags, "--out", disk / "run")
        _, error = child.communicate()
        assert (child.returncode, error.count("\n")) == (1, 1)
        assert "No space left on device" in error
        assert not hidden(disk)
        assert len(list_checkpoints(disk / "run")) == 2
        load_file(disk / "run" / "model.safetensors")
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert main(["train", "--resume", str(disk / "run")]) == 0
        assert len(list(csv.DictReader((disk / "run" / "metrics.csv").read_text().splitlines()))) == 4
        resumed = load_file(disk / "run" / "model.safetensors")
    assert all(value.equal(resumed[name]) for name, value in load_file(whole / "model.safetensors").items())


@pytest.mark.parametrize("out", ["ro/run", "ro", "file/run", "file", "x" * 300, "/proc/run", "/dev/null/run"])
def test_an_impossible_run_folder_is_one_line_before_the_data_are_read(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with mounted(tmp_path / "ro", "ro") if out.startswith("ro") else contextlib.nullcontext():
        assert main(["train", "--data", "nowhere", *TINY, "--out", out]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --out: ")
    assert error.count("\n") == 1


def test_a_run_in_a_read_only_folder_does_not_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = dataclasses.asdict(TrainConfig(data="nowhere"))
    with mounted(tmp_path / "disk", "size=1m") as disk:
        (disk / "config.json").write_text(json.dumps({"settings": settings, "resolved": {}}))
        checkpoints.save(disk, 1, {})
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert main(["train", "--resume", str(disk)]) == 1
    assert capsys.readouterr().err.startswith(f"error: --out: {disk}: Read-only file system, expected a place that")

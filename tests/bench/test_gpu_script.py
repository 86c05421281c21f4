"""`bench/gpu.sh` in a dry run on a CPU: every part has its results; what fails is named, and the rest continues."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import correctness
from bench.gpu.part import Scale
from bench.gpu.sweep import advice

ROOT = Path(__file__).parent.parent.parent
ROWS = ("C compiler and Python.h", "copy, bytes read", "kernel, 375 x 500 to 224, float16", "loader, uncached",
        "loader, cached on the device", "torchvision, float32", "the chapter's run, whole process",
        "resnet18, batches of 8 in memory", "  uncached", "decode_ahead 3, 2 by default")  # fmt: skip
TOOLS = ("bash", "cat", "dirname", "mkdir", "rm", "tail", "tee", "timeout")  # that gpu.sh uses


def dry_run(folder: Path, pets: Path, parts: str, **set_here: Any) -> subprocess.CompletedProcess[str]:
    set_here = {"PARTS": parts, "PYTHON": sys.executable, "FASTPETS_PETS": str(pets)} | set_here
    command = ["bash", "bench/gpu.sh", str(folder), "--device", "cpu"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | set_here, capture_output=True, text=True)


def results(folder: Path, part: str) -> dict[str, dict[str, Any]]:
    lines = (folder / f"{part}.jsonl").read_text().splitlines()
    return {result["name"]: result for result in map(json.loads, lines)}


@pytest.mark.slow
def test_a_dry_run_completes_every_part_and_says_that_its_figures_mean_nothing(tmp_path: Path, pets: Path) -> None:
    folder = tmp_path / "new" / "folder"
    done = dry_run(folder, pets, "preflight loading training chapter kernel sweep")
    logs = "\n".join(log.read_text() for log in folder.glob("*.log"))
    assert done.returncode == 0, done.stdout + logs
    assert "its figures mean nothing" in done.stdout
    assert all(row in done.stdout for row in ROWS), done.stdout
    chapter = results(folder, "chapter")
    epochs = [float(chapter[f"the chapter's run, epoch {number} of 2"]["seconds"]) for number in (1, 2)]
    assert 0 < sum(epochs) < chapter["the chapter's run, whole process"]["seconds"]
    assert not (folder / "weights.safetensors").exists()


@pytest.mark.slow
def test_a_part_that_fails_is_named_with_the_reason_and_the_others_run(tmp_path: Path) -> None:
    done = dry_run(tmp_path, tmp_path / "nothing", "loading kernel")
    assert done.returncode == 1
    reason = f"FASTPETS_PETS: {tmp_path}/nothing, expected a folder"
    assert f"loading: status 1, see {tmp_path}/loading.log: {reason}" in done.stdout
    assert "kernel, 256 x 256 to 224, float16" in done.stdout


KILLER = """#!/usr/bin/env bash
case "$*" in *bench.gpu.chapter*) ;; *) exec {python} "$@" ;; esac
{python} "$@" &
until [ -s {folder}/chapter.txt ]; do sleep 0.1; done
kill -KILL $! $$
"""


@pytest.mark.slow
def test_a_part_that_is_killed_keeps_its_results_and_leaves_nothing_running(tmp_path: Path, pets: Path) -> None:
    """The chapter's training is killed after its first epoch."""
    killer = tmp_path / "python"
    killer.write_text(KILLER.format(python=sys.executable, folder=tmp_path))
    killer.chmod(0o755)
    done = dry_run(tmp_path, pets, "chapter kernel", PYTHON=str(killer))
    assert done.returncode == 1
    assert "the chapter's run, epoch 1 of 2" in done.stdout
    assert "epoch 2 of 2" not in done.stdout
    assert "chapter: killed by signal 9" in done.stdout
    assert "kernel, 256 x 256 to 224, float16" in done.stdout
    assert str(tmp_path / "chapter") not in subprocess.check_output(["ps", "-eo", "args"], text=True)


CRASHING = """
import os, signal, pytest
def test_before(record_property): record_property("worst_step", 3.0)
def test_wrong(): assert 1 == 2
def test_of_another_machine(): pytest.skip("needs two CUDA GPUs")
def test_crash(): os.kill(os.getpid(), signal.SIGSEGV)
def test_after(): pass
"""


@pytest.mark.slow
def test_a_crash_loses_one_files_remaining_tests_and_is_named(tmp_path: Path) -> None:
    crashing, sound = tmp_path / "test_crashing.py", tmp_path / "test_sound.py"
    crashing.write_text(CRASHING)
    sound.write_text("def test_sound(): pass")
    done = dry_run(tmp_path, tmp_path, f"{crashing} {sound}")
    assert done.returncode == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert f"{crashing} 1 / 1 / 1 passed / failed / skipped" in lines
    assert "failed test_wrong" in lines
    assert "crashed with signal 11 in test_crash" in lines
    assert "skipped needs two CUDA GPUs" in lines
    assert "decoder, GPU against CPU: worst step of 255 3 mean below 1" in lines
    assert f"{sound} 1 / 0 / 0 passed / failed / skipped" in lines


def test_a_test_that_hangs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_out_of_time(command: list[str], env: dict[str, str], timeout: float) -> None:
        Path(env[correctness.EVENTS]).write_text(
            '{"test": "test_x.py::test_a", "outcome": "running"}\n{"test": "test_x.py::test_a", "outcome": "passed"}\n'
            '{"test": "test_x.py::test_b", "outcome": "running"}\n'
        )
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(correctness.subprocess, "run", run_out_of_time)
    arguments = ["--out", str(tmp_path), "--name", "x", "--seconds", "9", "--device", "cpu", "test_x.py"]
    monkeypatch.setattr(sys, "argv", ["correctness", *arguments])
    assert correctness.main() == 1
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == ["test_x.py 1 / 0 / 0 passed / failed / skipped", "out of time in test_b"]


def can_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "-m", "true"]).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs the right to mount")
def test_little_shared_memory_is_reported_and_other_libraries_are_left_out(tmp_path: Path, pets: Path) -> None:
    """As in a container; a worker process that writes beyond its end is killed by SIGBUS."""
    inner = f"mount -t tmpfs -o size=16m tmpfs /dev/shm && exec bash bench/gpu.sh {tmp_path} --device cpu"
    set_here = {"PARTS": "preflight loading", "PYTHON": sys.executable, "FASTPETS_PETS": str(pets)}
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", inner], cwd=ROOT, env=os.environ | set_here, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(line.startswith("/dev/shm 16 MiB too little for other loaders' worker processes") for line in lines)
    assert any(line.startswith("torchvision, float32 /dev/shm: 16 MiB free needs ") for line in lines)
    assert any(line.startswith("loader, uncached, float32 ") and "images/s" in line for line in lines)


@pytest.mark.slow
def test_a_missing_compiler_is_reported_and_the_rest_continues(tmp_path: Path, pets: Path) -> None:
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    done = dry_run(tmp_path / "report", pets, "preflight kernel", PATH=str(tmp_path), CC="")
    assert done.returncode == 1
    missing = r"C compiler and Python.h +failed  a C compiler is missing, which Triton needs to launch: apt-get install"
    assert re.search(missing, done.stdout), done.stdout
    assert re.search(r"one kernel launch +correct", done.stdout)
    assert "kernel, 256 x 256 to 224, float16" in done.stdout


def test_all_files_with_tests_for_a_gpu_are_parts_of_the_script() -> None:
    script = (ROOT / "bench" / "gpu.sh").read_text()
    named = set(re.findall(r"tests/\S+\.py", script.partition('parts="')[2].partition('"')[0]))
    marked = re.compile(r"^from tests.devices import|mark\.gpu$", re.MULTILINE)
    files = {file for file in (ROOT / "tests").rglob("test_*.py") if marked.search(file.read_text())}
    assert named == {str(file.relative_to(ROOT)) for file in files}


@pytest.mark.parametrize(
    ("gpu", "memory_gb", "tflops", "expected"),
    [
        ("T4", 15.6, 25, Scale(batch_size=128, train_batch_size=64, seconds=3.0)),
        ("L4", 23.6, 60, Scale(batch_size=256, train_batch_size=64, seconds=3.0)),
        ("4090", 25.3, 160, Scale(batch_size=256, train_batch_size=128, seconds=1.5)),
        ("H100", 85.0, 650, Scale(batch_size=256, train_batch_size=128, seconds=1.5)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_batches_and_durations_suit_the_gpu(gpu: str, memory_gb: float, tflops: float, expected: Scale) -> None:
    assert Scale.of(memory_gb, tflops) == expected


def test_only_a_difference_beyond_the_noise_is_one() -> None:
    assert advice([100, 104, 110], [111, 112, 120]) == "faster: reconsider the default"
    assert advice([100, 104, 110], [109, 112, 120]) == "within the noise"
    assert advice([100, 104, 110], [90, 95, 99]) == "slower"

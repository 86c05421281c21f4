"""`bench/gpu.sh` in a dry run on a CPU: every part completes and has its rows in the table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
ROWS = ("copy, bytes read", "kernel, 375 x 500 to 224, float16", "loader, uncached", "loader, cached on the device",
        "hw_decoder_load", "torchvision's DataLoader", "fastai's chapter, whole process", "resnet18, batches in memory",
        "  uncached")  # fmt: skip


def dry_run(folder: Path, pets: Path, parts: str) -> subprocess.CompletedProcess[str]:
    set_here = {"PARTS": parts, "PYTHON": sys.executable, "FASTPETS_PETS": str(pets)}
    command = ["bash", "bench/gpu.sh", str(folder), "--device", "cpu"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | set_here, capture_output=True, text=True)


def test_a_dry_run_completes_every_part_and_says_that_its_figures_mean_nothing(tmp_path: Path, pets: Path) -> None:
    done = dry_run(tmp_path / "new" / "folder", pets, "kernel loading chapter training")
    logs = "\n".join(log.read_text() for log in (tmp_path / "new" / "folder").glob("*.log"))
    assert done.returncode == 0, done.stdout + logs
    assert "its figures mean nothing" in done.stdout
    assert all(row in done.stdout for row in ROWS), done.stdout
    found = json.loads((tmp_path / "new" / "folder" / "all.json").read_text())
    assert len(found["chapter"]["seconds_per_epoch"]) == 2
    assert sum(found["chapter"]["seconds_per_epoch"]) < found["chapter"]["seconds"]
    assert {"in memory", "cached", "uncached"} < set(found["training"]["resnet18"])
    assert found["correctness"] is None
    assert not (tmp_path / "new" / "folder" / "weights.safetensors").exists()


def test_a_part_that_fails_is_named_with_its_log_and_the_others_run(tmp_path: Path) -> None:
    done = dry_run(tmp_path, tmp_path / "nothing", "loading kernel")
    assert done.returncode == 1
    assert f"loading: status 1 (124: out of time), see {tmp_path}/loading.log" in done.stdout
    assert "nothing: see its log" in done.stdout
    assert f"FASTPETS_PETS: {tmp_path}/nothing, expected a folder" in (tmp_path / "loading.log").read_text()
    assert "kernel, 256 x 256 to 224, float16" in done.stdout

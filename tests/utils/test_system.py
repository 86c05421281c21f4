"""What the machine offers: the least of affinity and quotas, and bfloat16 only where the processor says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastpets.utils import system


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups, with this process in /own/group, on a machine of 64 processors."""
    (tmp_path / "own" / "group").mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/own/group\n")
    monkeypatch.setattr(system, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(system, "OWN_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    return tmp_path


def test_without_quotas_affinity_decides(cgroups: Path) -> None:
    assert system.num_processors() == 64
    (cgroups / "own" / "group" / "cpu.max").write_text("max 100000\n")
    assert system.num_processors() == 64


def test_the_smallest_quota_of_a_group_and_its_ancestors_decides(cgroups: Path) -> None:
    (cgroups / "own" / "group" / "cpu.max").write_text("800000 100000\n")
    assert system.num_processors() == 8
    (cgroups / "own" / "cpu.max").write_text("250000 100000\n")
    assert system.num_processors() == 3  # two and a half, rounded up
    (cgroups / "cpu.max").write_text("10000 100000\n")
    assert system.num_processors() == 1


def test_the_first_version_of_control_groups_counts_too(cgroups: Path) -> None:
    (cgroups / "cpu").mkdir()
    (cgroups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (cgroups / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert system.num_processors() == 64
    (cgroups / "cpu" / "cpu.cfs_quota_us").write_text("400000\n")
    assert system.num_processors() == 4


def test_a_real_process_bound_to_one_processor_counts_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from fastpets.utils.system import num_processors; print(num_processors())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "1\n"


@pytest.mark.parametrize(
    ("machine", "text", "expected"),
    [
        ("x86_64", "flags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("x86_64", "flags\t\t: fpu avx2 avx512f\n", False),
        ("aarch64", "Features\t: fp asimd bf16\n", True),
        ("aarch64", "Features\t: fp asimd\n", False),
    ],
)
def test_bfloat16_is_what_the_processors_flags_say(
    machine: str, text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}\n")
    monkeypatch.setattr(system, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert system.cpu_has_bfloat16() is expected


def test_the_cache_folder_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert system.cache_dir() == tmp_path / "there" / "fastpets"
    assert system.cache_dir().is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert system.cache_dir() == tmp_path / ".cache" / "fastpets"

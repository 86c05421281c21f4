"""Processors, memory and bfloat16 as the system reports them, and the cache folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastpets.utils import system


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups on a machine of 64 processors; this process is in /own/group."""
    (tmp_path / "own" / "group").mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/own/group\n")
    monkeypatch.setattr(system, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(system, "OWN_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    return tmp_path


def test_without_quotas_the_affinity_mask_counts(cgroups: Path) -> None:
    assert system.num_processors() == 64
    (cgroups / "own" / "group" / "cpu.max").write_text("max 100000\n")
    assert system.num_processors() == 64


def test_on_systems_without_affinity_masks_all_processors_count(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert system.num_processors() == 12


def test_the_smallest_quota_of_a_group_and_its_ancestors_counts(cgroups: Path) -> None:
    (cgroups / "own" / "group" / "cpu.max").write_text("800000 100000\n")
    assert system.num_processors() == 8
    (cgroups / "own" / "cpu.max").write_text("250000 100000\n")
    assert system.num_processors() == 3  # two and a half, rounded up
    (cgroups / "cpu.max").write_text("10000 100000\n")
    assert system.num_processors() == 1


@pytest.mark.parametrize("visible", ["group", "root"])
def test_quotas_and_limits_of_control_groups_version_1_count(cgroups: Path, visible: str) -> None:
    """A container sees its own group as the root, but /proc/self/cgroup may name its path on the host."""
    lines = ["4:cpu,cpuacct:/pod/one", "3:memory:/pod/one", "2:cpuset:/", "1:name=systemd:/", "0::/"]
    (cgroups / "cgroup").write_text("\n".join(lines) + "\n")
    for controller in ("cpu", "memory"):
        (cgroups / controller / "pod" / "one").mkdir(parents=True)
    cpu, memory = (cgroups / name / ("pod/one" if visible == "group" else "") for name in ("cpu", "memory"))
    (cpu / "cpu.cfs_period_us").write_text("100000\n")
    (cpu / "cpu.cfs_quota_us").write_text("-1\n")
    assert system.num_processors() == 64
    (cpu / "cpu.cfs_quota_us").write_text("250000\n")
    assert system.num_processors() == 3
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # no limit
    (memory / "memory.usage_in_bytes").write_text("48576\n")
    assert system.free_memory() > 2**20
    (memory / "memory.limit_in_bytes").write_text("1048576\n")
    assert system.free_memory() == 1_000_000
    (memory / "memory.stat").write_text("inactive_file 9\ntotal_inactive_file 40000\n")
    assert system.free_memory() == 1_040_000


@pytest.fixture
def limited_group() -> Iterator[Path]:
    """A control group of this machine whose processes may use half a processor."""
    for parent in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
        group = parent / f"fastpets-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if parent.name == "cpu":
                (group / "cpu.cfs_quota_us").write_text("50000")
            else:
                (group / "cpu.max").write_text("50000 100000")
            yield group
            return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("needs a machine on which this user may make control groups with a quota")


@pytest.mark.slow
def test_a_quota_of_the_kernel_limits_the_threads_of_a_process(limited_group: Path) -> None:
    code = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
    code += "from fastpets.utils.system import num_processors; print(num_processors())\n"
    code += "from fastpets.runs.build import limit_threads; import torch; limit_threads(None)\n"
    code += "print(torch.get_num_threads())"
    command = [sys.executable, "-c", code, str(limited_group / "cgroup.procs")]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    child = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert child.stdout == "1\n1\n"


def test_a_process_bound_to_one_processor_counts_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from fastpets.utils.system import num_processors; print(num_processors())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "1\n"


@pytest.mark.parametrize(("num_processes", "expected"), [(1, 16), (4, 16), (8, 8), (64, 1), (100, 1)])
def test_the_default_number_of_workers_is_a_share_of_at_most_16(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch, num_processes: int, expected: int
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(num_processes))
    assert system.resolve_num_workers(None) == expected
    assert [system.resolve_num_workers(n) for n in (0, 1, 5)] == [1, 1, 5]


def test_free_memory_is_at_most_what_the_control_groups_leave(cgroups: Path) -> None:
    free = system.free_memory()
    assert free > 2**20
    for group, limit in (("own/group", "max"), ("own", "1048576")):
        (cgroups / group / "memory.max").write_text(f"{limit}\n")
        (cgroups / group / "memory.current").write_text("48576\n")
    assert system.free_memory() == 1_000_000
    (cgroups / "own" / "memory.stat").write_text("anon 8000\ninactive_file 40000\nactive_file 576\n")
    assert system.free_memory() == 1_040_000  # the kernel reclaims inactive pages of the file cache


@pytest.mark.parametrize(
    ("machine", "text", "expected"),
    [
        ("x86_64", "flags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("x86_64", "flags\t\t: fpu avx2 avx512f\n", False),
        ("aarch64", "Features\t: fp asimd bf16\n", True),
        ("aarch64", "Features\t: fp asimd\n", False),
    ],
)
def test_bfloat16_follows_from_the_processors_flags(
    machine: str, text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}\n")
    monkeypatch.setattr(system, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert system.cpu_has_bfloat16() is expected


def test_the_cache_folder_honours_xdg_cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert system.cache_dir() == tmp_path / "there" / "fastpets"
    assert system.cache_dir().is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert system.cache_dir() == tmp_path / ".cache" / "fastpets"


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_a_home_directory_there_is_no_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(OSError, match="this user has no home directory") as raised:
        system.cache_dir()
    assert "cache folder: this user has no home directory; set XDG_CACHE_HOME" in system.cache_problem(raised.value)
    assert list(tmp_path.iterdir()) == []  # no folder named ~

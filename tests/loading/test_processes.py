"""Four real processes, by torchrun and gloo, take no more of the machine together than there is."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent.parent / "budget_worker.py"
PROCESSES = 4


def test_threads_and_caches_of_all_processes_fit_the_machine(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Images in files are cached once for all; those in each process's own memory, in a share of what is free."""
    num_processors, free = 10, 2_000_000  # bytes, for 60 images of 10 kB
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}", WORKER]
    command += [make_folder(60), tmp_path, num_processors, free]
    child = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(PROCESSES)]
    for source in ("files", "in memory"):
        found = [rank[source] for rank in ranks]
        assert all(each["num_workers"] >= 1 for each in found)
        assert sum(each["num_workers"] for each in found) <= num_processors
        assert sum(each["own_bytes"] for each in found) <= free / 2, found
    for each in (rank["files"] for rank in ranks):
        assert each["where"].startswith("memory shared by the processes"), each
        assert each["needed"] <= each["shared_bytes"] <= free / 2  # they are reserved in advance
        assert each["filled"][-1] == 60

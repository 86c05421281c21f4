"""Data-parallel training in real processes, by torchrun: on the CPU by gloo, on GPUs by NCCL."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpets.errors import FastpetsError
from fastpets.training import distributed
from fastpets.training.random_state import RandomState
from tests.devices import TWO_GPUS
from tests.training_worker import train

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent.parent / "training_worker.py"


def torchrun(num_processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)


def run(
    folder: Path, out: Path, num_processes: int, model: str, *numbers: int, device: str = "cpu"
) -> list[dict[str, Any]]:
    child = torchrun(num_processes, WORKER, folder, out, model, device, *numbers)
    assert child.returncode == 0, child.stderr
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(num_processes)]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=TWO_GPUS)])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_two_processes_have_the_loss_curve_of_one_with_twice_the_batch_size(
    make_folder: Callable[..., Path], tmp_path: Path, accumulate: int, device: str
) -> None:
    folder = make_folder(50)
    first, second = run(folder, tmp_path, 2, "smooth", 4, accumulate, device=device)
    alone = train(str(folder), "smooth", device, 8, accumulate)
    assert len(alone["losses"]) == 3 * 5
    for name in ("losses", "smoothed", "valid", "metrics", "parameters"):
        found, expected = torch.tensor(first[name]), torch.tensor(alone[name])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=name)
    assert first == second


@pytest.mark.parametrize(
    ("model", "num_processes", "accumulate", "drop_last"),
    # With batches of 5 and 2 processes, the last training batch has one image, which batch norm cannot train on.
    [("shufflenet_v2_x0_5", 2, 1, 1), ("unused", 3, 1, 1), ("shufflenet_v2_x0_5", 2, 2, 0), ("unused", 2, 4, 0)],
)
def test_parameters_and_results_are_the_same_in_all_processes(
    make_folder: Callable[..., Path], tmp_path: Path, model: str, num_processes: int, accumulate: int, drop_last: int
) -> None:
    # 65 images: 52 for training and 13 for validation, where the first process has one batch more than the last.
    batch_size = 4 if drop_last else 5
    ranks = run(make_folder(65), tmp_path, num_processes, model, batch_size, accumulate, drop_last)
    assert all(rank == ranks[0] for rank in ranks)
    assert [values[2] for values in ranks[0]["metrics"]] == [13, 13, 13]
    assert [round(error_rate * 13, 3) % 1 for _, error_rate in ranks[0]["valid"]] == [
        0,
        0,
        0,
    ]  # of 13 images, each once


def test_the_command_trains_in_all_processes_and_only_the_first_writes(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = ["--arch", "shufflenet_v2_x0_5", "--weights", "none", "--size", 32, "--batch-size", 4, "--device", "cpu"]
    child = torchrun(
        2, "-m", "fastpets.train", "--data", make_folder(53), *flags, "--epochs", 2, "--tta", 1, "--out", out
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.count("43 training images, 10 validation images, 2 classes") == 1
    assert child.stdout.count(f"model and metrics: {out}") == 1
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["batches"] for row in rows] == ["5", "10"]  # of 8 images in both processes together
    assert json.loads((out / "config.json").read_text())["resolved"]["num_processes"] == 2
    child = torchrun(2, "-m", "fastpets.train", "--data", tmp_path / "nowhere", *flags)
    assert child.returncode != 0
    assert "nowhere: nothing there, expected a folder of images" in child.stderr


def test_leaving_out_files_is_refused_in_several_processes(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    flags = ["--arch", "squeezenet1_1", "--weights", "none", "--size", 32, "--batch-size", 2, "--device", "cpu"]
    more = ["--on-bad-file", "skip", "--out", tmp_path / "run"]
    child = torchrun(2, "-m", "fastpets.train", "--data", make_folder(20), *flags, *more)
    assert child.returncode != 0
    assert "error: --on-bad-file: 'skip' with 2 processes" in child.stderr
    assert "Traceback" not in child.stderr.partition("torch/distributed")[0]
    assert not (tmp_path / "run").exists()


def test_processes_stop_together_on_a_signal_and_resume(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    # 45 images: 9 for validation, two batches in one process and one in the other.
    flags = ["--data", make_folder(45), "--arch", "shufflenet_v2_x0_5", "--weights", "none", "--size", 32]
    flags += ["--batch-size", 4, "--device", "cpu", "--epochs", 500, "--out", out]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    child = subprocess.Popen([*command, "fastpets.train", *map(str, flags)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "model.json").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    printed, _ = child.communicate(timeout=60)
    found = re.search(rf"stopped after (\d+) complete epochs?; resume with --resume {out}", printed)
    assert found, printed
    config = json.loads((out / "config.json").read_text())
    config["settings"]["epochs"] = int(found[1]) + 6  # more than 16 steps, until the next check
    config["resolved"]["epochs"] = [config["settings"]["epochs"]]
    (out / "config.json").write_text(json.dumps(config))
    child_again = torchrun(2, "-m", "fastpets.train", "--resume", out)
    assert child_again.returncode == 0, child_again.stderr
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert len(rows) == int(found[1]) + 6


def test_local_rank_picks_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.local_device("auto") == "auto"  # not under torchrun
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        FastpetsError,
        match=r"^device: cuda:0, but under torchrun each process has a GPU of its own; expected cuda or auto",
    ):
        distributed.local_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(FastpetsError, match="LOCAL_RANK 1, but torch sees 1 GPUs"):
        distributed.local_device("cuda")
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **_: chosen.append(backend))
    assert distributed.local_device("cuda") == "cuda:1"
    assert chosen == []
    distributed.start("cuda:1")
    assert chosen == [1, "nccl"]


def test_a_mean_over_processes_leaves_its_argument_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "_message_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(4))
    values = torch.ones(3)
    assert torch.equal(distributed.mean(values), torch.full((3,), 2.0))
    assert torch.equal(values, torch.ones(3))


def test_a_diverging_random_state_leaves_torchs_generators_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "manual_seed", None)  # would seed those of all devices
    one, other = (RandomState(3, torch.device("cpu")) for _ in range(2))
    before = torch.get_rng_state()
    other.diverge(0)
    assert torch.equal(one.stored[0], other.stored[0])
    other.diverge(1)
    assert not torch.equal(one.stored[0], other.stored[0])
    assert torch.equal(torch.get_rng_state(), before)

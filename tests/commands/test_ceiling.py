"""`fastpets ceiling`, and Replay, which keeps batches in memory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastpets import Learner, Loader, create_model
from fastpets.ceiling import Replay
from fastpets.data.sources import from_folder

pytestmark = pytest.mark.slow


def test_a_replay_repeats_the_first_batches_of_the_next_epoch(make_folder: Callable[..., Path]) -> None:
    loader = Loader(from_folder(make_folder(20)), size=8, batch_size=3, augment=True)
    epoch = list(loader)
    loader.set_epoch(0)
    replay = Replay(loader, 2)
    assert len(replay) == len(loader) == 6
    for _ in range(2):
        found = list(replay)
        assert len(found) == 6
        for number, batch in enumerate(found):
            assert torch.equal(batch.images, epoch[number % 2].images)
            assert torch.equal(batch.labels, epoch[number % 2].labels)
    assert replay.classes == loader.classes


def test_a_learner_trains_on_a_replay(make_folder: Callable[..., Path]) -> None:
    train, valid = (Loader(from_folder(make_folder(20, name=name)), size=32, batch_size=4, augment=name == "train",
                           device="cpu") for name in ("train", "valid"))  # fmt: skip
    learner = Learner(Replay(train, 2), valid, create_model("resnet18", 2, "none"))
    learner.fit_one_cycle(1, 1e-3)
    assert len(learner.history) == 1


def ceiling(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastpets.ceiling", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_ceiling_prints_three_rates_and_writes_no_files(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(40)
    before = sorted(tmp_path.rglob("*"))
    tiny = ["--arch", "resnet18", "--weights", "none", "--size", 32, "--batch-size", 8, "--device", "cpu"]
    child = ceiling("--data", folder, *tiny, "--cache", "host", "--num-batches", 2, "--seconds", 0.5)
    assert child.returncode == 0, child.stderr
    names = [line.rsplit(maxsplit=1)[0].strip() for line in child.stdout.splitlines()[1:4]]
    assert names == ["loading alone", "training, batches in memory", "training, batches loaded"]
    rates = [float(line.split()[-1]) for line in child.stdout.splitlines()[1:4]]
    assert min(rates) > 0
    share = min(1, rates[2] / rates[1])
    assert abs(float(child.stdout.split("training runs at ")[1].split("%")[0]) / 100 - share) < 0.02
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_is_one_line() -> None:
    for flag, value, shown in (("--num-batches", 0, "0"), ("--seconds", -1, "-1.0")):
        child = ceiling(flag, value)
        assert (child.returncode, child.stdout) == (1, "")
        assert child.stderr.startswith(f"error: {flag}: {shown}, expected a value from ")
        assert child.stderr.count("\n") == 1

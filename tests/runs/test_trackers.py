"""What a run logs for TensorBoard, Weights & Biases and MLflow, read back by these libraries."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastpets.cli import main
from fastpets.errors import FastpetsError
from fastpets.runs.trackers import TrackerLog
from fastpets.training.history import EpochResult
from fastpets.training.recorder import Recorder

NAME = "valid/recall/caf\\udce9"  # a class whose name is not UTF-8


def result(batches: int, **metrics: float) -> EpochResult:
    return EpochResult(
        phase="one cycle", epoch=0, batches=batches, train_loss=1.0, valid_loss=1.5, error_rate=0.5, metrics=metrics,
        seconds=1.0, images_per_sec=1.0, input_share=0.0,
    )  # fmt: skip


def log_epoch(name: str, folder: Path, num_before: int, num_batches: int) -> None:
    """Logs an epoch of a run that has logged `num_before` batches before."""
    recorder = Recorder()
    recorder.losses, recorder.rates = [4.0, 3.0, 2.0], [0.1, 0.2, 0.3]
    settings = {"arch": "resnet18", "out": folder, **{f"setting{n}": n for n in range(120)}}
    log = TrackerLog([name], folder, "20261129", settings, num_before)
    log.log_epoch(result(num_batches, **{"recall/caf\udce9": 0.25 * num_batches}), recorder)
    log.close()


def log_twice(name: str, folder: Path) -> None:
    """Logs an epoch of two batches, and one of a resumed run."""
    log_epoch(name, folder, 0, 2)
    log_epoch(name, folder, 2, 3)


@pytest.fixture
def mlflow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "pets")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri("")


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_twice("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 4), (2, 3), (3, 2)]
    assert [(event.step, event.value) for event in events.Scalars(NAME)] == [(2, 0.5), (3, 0.75)]


@pytest.mark.slow
def test_mlflow(tmp_path: Path, mlflow_client: Any) -> None:
    log_twice("mlflow", tmp_path)
    experiment = mlflow_client.get_experiment_by_name("pets")
    (run,) = mlflow_client.search_runs([experiment.experiment_id])  # the resumed run is the same
    assert (run.data.params["arch"], run.data.params["setting119"]) == ("resnet18", "119")
    losses = mlflow_client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 4), (2, 3), (3, 2)]
    recalls = mlflow_client.get_metric_history(run.info.run_id, NAME.replace("\\", "_"))
    assert [(metric.step, metric.value) for metric in recalls] == [(2, 0.5), (3, 0.75)]
    assert run.info.status == "FINISHED"


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format, in blocks of 32,768 bytes."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        end, kind = place + 7 + int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record += content[place + 7 : end]
        place = end
        if kind in (1, 4):  # a whole record, or its last part
            yield record
            record = b""


@pytest.mark.slow
def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    for batches in ((0, 2), (2, 3)):  # a process can log a run once
        code = f"from tests.runs.test_trackers import *; log_epoch('wandb', Path({str(tmp_path)!r}), *{batches})"
        subprocess.run([sys.executable, "-c", code], check=True)
    logged = []
    for file in sorted(tmp_path.glob("wandb/offline-run-*/run-20261129.wandb")):
        for content in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if "train/loss" in items:
                logged.append((int(items["_step"]), float(items["train/loss"])))
    assert logged == [(1, 4), (2, 3), (3, 2)]


def test_a_folder_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FastpetsError, match="it needs a path in UTF-8"):
        TrackerLog(["tensorboard"], tmp_path / os.fsdecode(b"r\xfcn"), "1", {})


def test_a_tracker_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = TrackerLog(["tensorboard"], tmp_path, "1", {})
    monkeypatch.setattr(log.trackers["tensorboard"], "log", lambda rows: 1 / 0)
    with pytest.warns(UserWarning, match="tensorboard: not written .ZeroDivisionError: division by zero"):
        log.log_epoch(result(0), Recorder())


@pytest.mark.slow
def test_a_run_logs_to_all_trackers(
    drawn_classes: Path, tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    flags = ["--arch", "squeezenet1_1", "--weights", "none", "--size", "32", "--batch-size", "8", "--device", "cpu"]
    flags += ["--epochs", "1", "--track", "tensorboard", "wandb", "mlflow", "--out", str(tmp_path / "run")]
    assert main(["train", str(drawn_classes), *flags]) == 0
    (run,) = mlflow_client.search_runs([mlflow_client.get_experiment_by_name("pets").experiment_id])
    assert run.data.params["size"] == "32"
    assert len(mlflow_client.get_metric_history(run.info.run_id, "train/loss")) == 6
    assert (tmp_path / "run" / "tensorboard").is_dir()
    assert list(tmp_path.glob("run/wandb/offline-run-*"))

"""What a run logs for TensorBoard."""

import os
from pathlib import Path

import pytest

from fastpets.errors import FastpetsError
from fastpets.runs.trackers import TensorBoard
from fastpets.training.history import EpochResult
from fastpets.training.recorder import Recorder


def result(metrics: dict[str, float]) -> EpochResult:
    return EpochResult(
        phase="one cycle", epoch=0, batches=0, train_loss=1.0, valid_loss=1.0, error_rate=0.5, metrics=metrics,
        seconds=1.0, images_per_sec=1.0, input_share=0.0,
    )  # fmt: skip


def test_classes_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    TensorBoard(tmp_path).log_epoch(result({"recall/caf\udce9": 0.25}), Recorder())
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Scalars(r"valid/recall/caf\udce9")
    assert event.value == 0.25


def test_a_folder_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FastpetsError, match="it needs a path in UTF-8"):
        TensorBoard(tmp_path / os.fsdecode(b"r\xfcn"))

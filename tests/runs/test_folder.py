"""The run folder."""

import os
from pathlib import Path

import pytest

from fastpets.errors import InvalidArgumentError
from fastpets.runs.files import read_bad_files, read_rows, write_rows
from fastpets.runs.folder import RunFolder
from fastpets.training.history import EpochResult


def test_a_folder_with_files_is_used_only_to_resume(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.save_config({"epochs": 1}, {})
    run.close()
    RunFolder(run.path).close()  # with nothing but a configuration: its run ended before an epoch was complete
    (run.path / "metrics.csv").touch()
    with pytest.raises(InvalidArgumentError, match=r"^out: .*run exists and is not empty, expected a new or an empty"):
        RunFolder(run.path)
    RunFolder(run.path, resume=True).close()
    assert '"epochs": 1' in (run.path / "config.json").read_text()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgumentError, match=r"^out: .*file/run: .*file is a file, expected a folder"):
        RunFolder(tmp_path / "file" / "run")
    with pytest.raises(InvalidArgumentError, match=r"^out: .*: Not a directory, expected a place that"):
        RunFolder(tmp_path / "file" / "run", resume=True)


def test_bad_files_of_a_resumed_run_are_added_to_the_earlier_ones(tmp_path: Path) -> None:
    run, not_utf8 = RunFolder(tmp_path / "run"), os.fsdecode(b"\xff.jpg")
    assert run.save_bad_files({}) == 0
    assert not (run.path / "bad_files.csv").exists()
    assert run.save_bad_files({not_utf8: "0 bytes", "b.jpg": "0 bytes"}) == 2
    assert run.save_bad_files({"b.jpg": "truncated", "c.jpg": "0 bytes"}) == 3
    found = read_bad_files(run.path / "bad_files.csv")
    assert found == {not_utf8: "0 bytes", "b.jpg": "truncated", "c.jpg": "0 bytes"}


def test_class_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    metrics = {os.fsdecode(b"recall/\xff"): 0.5}
    result = EpochResult(
        phase="one cycle", epoch=0, batches=1, train_loss=1, valid_loss=1, error_rate=1, metrics=metrics, seconds=1,
        images_per_sec=1, input_share=0,
    )  # fmt: skip
    run = RunFolder(tmp_path / "run")
    run.save_history([result])
    assert b"recall/\xff" in (run.path / "metrics.csv").read_bytes()


def test_epochs_with_different_metrics_are_in_one_table(tmp_path: Path) -> None:
    write_rows(tmp_path / "table.csv", [{"loss": 0.1}, {"loss": 0.2, "f1": 1 / 3}])
    assert read_rows(tmp_path / "table.csv") == [{"loss": "0.1", "f1": ""}, {"loss": "0.2", "f1": "0.3333333"}]

"""The run folder."""

from pathlib import Path

import pytest

from fastpets.errors import InvalidArgumentError
from fastpets.runs.folder import RunFolder


def test_a_folder_with_files_is_used_only_to_resume(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.save_config({"epochs": 1}, {})
    with pytest.raises(InvalidArgumentError, match=r"^out: .*run exists and is not empty, expected a new or an empty"):
        RunFolder(run.path)
    RunFolder(run.path, resume=True)
    assert '"epochs": 1' in (run.path / "config.json").read_text()

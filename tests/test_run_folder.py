"""The run folder: whole files or none."""

from pathlib import Path

import pytest

from fastpets.run_folder import RunFolder


def test_a_write_that_is_interrupted_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.save_config({"epochs": 1}, {})

    def interrupted(path: Path) -> None:
        path.write_text("half of")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run._write("config.json", interrupted)
    assert [path.name for path in run.path.iterdir()] == ["config.json"]
    assert '"epochs": 1' in (run.path / "config.json").read_text()

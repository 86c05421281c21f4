"""The run folder: whole files or none."""

from pathlib import Path

import pytest

from fastpets.runs.folder import RunFolder


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


def test_what_a_run_leaves_can_be_read_by_whom_the_users_other_files_can(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from fastpets.utils.atomic import write_atomically

    (tmp_path / "other").touch()
    write_atomically(tmp_path / "weights", lambda path: save_file({"a": torch.zeros(3)}, path))
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "other").stat().st_mode

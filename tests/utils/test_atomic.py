"""Atomic file writes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fastpets.utils.atomic import write_atomically


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("old")

    def interrupted(path: Path) -> None:
        path.write_text("half of")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert file.read_text() == "old"


def test_several_writers_of_one_path_do_not_disturb_each_other(tmp_path: Path) -> None:
    file = tmp_path / "config.json"

    def write_while_another_writes(path: Path) -> None:
        path.write_text("one")
        write_atomically(file, lambda other: other.write_text("another"))
        assert file.read_text() == "another"
        assert path.read_text() == "one"

    write_atomically(file, write_while_another_writes)
    assert file.read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_files_have_the_permissions_of_the_users_other_files(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write_atomically(tmp_path / "weights", lambda path: save_file({"a": torch.zeros(3)}, path))
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "other").stat().st_mode

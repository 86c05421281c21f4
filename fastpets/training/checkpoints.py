"""Checkpoints: the whole state of a learner in a file, from which a run resumes as if it had not stopped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from fastpets.errors import FastpetsError
from fastpets.models.weights import short_reason
from fastpets.utils.atomic import write_atomically

NUM_KEPT = 2
FORMAT, VERSION = "fastpets checkpoint", 3
NAME = re.compile(r"checkpoint-(\d+)\.pt")


def save(folder: Path, num_batches: int, state: dict[str, Any]) -> Path:
    """Writes `checkpoint-BATCHES.pt` atomically and deletes all but the last two checkpoints in the folder.

    `num_batches` is the number of batches that the run has trained on. `state` consists of dicts, lists, tuples,
    numbers, strings and tensors. Raises OSError.
    """
    path = folder / f"checkpoint-{num_batches:08}.pt"
    contents = {"format": FORMAT, "version": VERSION, "state": state}
    write_atomically(path, lambda staging: _write(contents, staging))
    for old in list_checkpoints(folder)[:-NUM_KEPT]:
        old.unlink()
    return path


def _write(contents: dict[str, Any], path: Path) -> None:
    try:
        with open(path, "wb") as file:
            torch.save(contents, file)
    except RuntimeError as error:  # torch hides the OSError of a failed write, such as one on a full disk
        raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run folder, the latest last."""
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def find(run: Path) -> Path:
    """The latest checkpoint of the run folder `run`, or `run` itself if it is a file.

    Raises FastpetsError if there is none.
    """
    if run.is_dir():
        if found := list_checkpoints(run):
            return found[-1]
        raise FastpetsError(f"resume: {run}: no checkpoint in it, expected checkpoint-*.pt; start a new run")
    if not run.is_file():
        raise FastpetsError(f"resume: {run}: nothing there, expected a run folder or a checkpoint in one")
    return run


def load(path: Path) -> dict[str, Any]:
    """Reads a state, with all tensors on the CPU. Raises FastpetsError for a truncated file or one of another kind.

    With `weights_only`, torch restores only tensors and plain types, so that a file from elsewhere cannot run code.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the file may have any content; torch raises errors of many types
        reason = short_reason(error)[:100] or type(error).__name__
        raise FastpetsError(
            f"resume: {path}: not a complete checkpoint ({reason}); resume the one before it, or start a new run"
        ) from None
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise FastpetsError(f"resume: {path}: not a {FORMAT}; expected a checkpoint-*.pt of a run folder")
    if contents.get("version") != VERSION:
        raise FastpetsError(
            f"resume: {path}: version {contents.get('version')} of the format, expected {VERSION}; resume it with the "
            "release of fastpets that wrote it"
        )
    return contents["state"]

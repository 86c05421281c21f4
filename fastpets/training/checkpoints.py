"""Checkpoints: all that a run needs to go on as if nothing had happened, in one safetensors file each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fastpets.errors import FastpetsError
from fastpets.utils.atomic import write_atomically

KEPT = 2
FORMAT = "fastpets checkpoint 1"
NAME = re.compile(r"checkpoint-(\d+)\.safetensors")


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes a state, of dicts, lists, numbers, texts and tensors, after so many steps; the last two files stay."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _without_tensors(state, "state", tensors)
    path = folder / f"checkpoint-{step:08}.safetensors"
    metadata = {"format": FORMAT, "tree": json.dumps(tree)}
    write_atomically(path, lambda staging: save_file(tensors, staging, metadata))
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run folder, the latest last."""
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def find(run: Path) -> Path:
    """A checkpoint itself, or the latest one of a run folder. Raises FastpetsError if there is none."""
    if run.is_dir():
        if found := checkpoints(run):
            return found[-1]
        raise FastpetsError(f"--resume {run}: no checkpoint in it, expected checkpoint-*.safetensors; start anew")
    if not run.is_file():
        raise FastpetsError(f"--resume {run}: nothing there, expected a run folder or a checkpoint in one")
    return run


def load(path: Path) -> dict[str, Any]:
    """The state in a file. Raises FastpetsError if it is not whole, or no checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                found = metadata.get("format", "weights alone")
                raise FastpetsError(f"--resume {path}: {found}, expected a {FORMAT!r}; give one of a run folder's own")
            return _with_tensors(json.loads(metadata["tree"]), file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FastpetsError(
            f"--resume {path}: not a whole checkpoint ({error}); give the one before it, or start anew"
        ) from None


def _without_tensors(tree: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """The tree with a name in place of each tensor; those go to `tensors`, copied."""
    if isinstance(tree, torch.Tensor):
        tensors[name] = torch.empty(tree.shape, dtype=tree.dtype).copy_(tree)
        return {"tensor": name}
    if isinstance(tree, dict):
        return {"dict": {str(key): _without_tensors(tree[key], f"{name}/{key}", tensors) for key in tree}}
    if isinstance(tree, list | tuple):
        return [_without_tensors(value, f"{name}/{number}", tensors) for number, value in enumerate(tree)]
    return tree


def _with_tensors(tree: Any, file: Any) -> Any:
    if isinstance(tree, dict) and "tensor" in tree:
        return file.get_tensor(tree["tensor"])
    if isinstance(tree, dict):
        return {key: _with_tensors(value, file) for key, value in tree["dict"].items()}
    return [_with_tensors(value, file) for value in tree] if isinstance(tree, list) else tree

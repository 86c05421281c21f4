"""Weight files: those of whole models in safetensors files, and the tensors of any other file of weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from fastpets.errors import FastpetsError, counted, first_few
from fastpets.utils.atomic import write_atomically

CLASSES = "classes"  # key of the names of the classes in the metadata of a safetensors file


def save_weights(model: nn.Module, path: Path, classes: Sequence[str] | None = None) -> None:
    """Writes all parameters and buffers, and the names of the classes if given, atomically. Raises OSError."""
    metadata = None if classes is None else {CLASSES: json.dumps(list(classes))}
    # safetensors needs contiguous tensors that share no memory.
    state = {
        name: torch.empty(value.shape, dtype=value.dtype).copy_(value) for name, value in model.state_dict().items()
    }

    def write(staging: Path) -> None:
        try:
            save_file(state, staging, metadata)
        except SafetensorError as error:  # a full disk, for example
            raise OSError(short_reason(error)) from None

    write_atomically(path, write)


def load_weights(model: nn.Module, path: Path, classes: Sequence[str] | None = None) -> None:
    """Loads all parameters and buffers. Raises FastpetsError for another model's weights or an unreadable file.

    If `classes` are given and the file has names of classes, they have to be the same in the same order. The model
    stays as it was if the file is refused.
    """
    try:
        contents = path.read_bytes()  # load_file opens only paths in UTF-8
        tensors, saved = load(contents), _saved_classes(contents)
        check_fit(model, tensors)
        if classes is not None and saved is not None and list(classes) != saved:
            raise RuntimeError(different_classes(saved, classes))
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise FastpetsError(
            f"{path}: {short_reason(error)}; expected the weights of a model of the same arch and classes"
        ) from None


def _saved_classes(contents: bytes) -> list[str] | None:
    """The names of the classes in a safetensors file, or None. Its header is JSON after 8 bytes with its length."""
    header = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])
    text = header.get("__metadata__", {}).get(CLASSES)
    return None if text is None else list(json.loads(text))


def different_classes(saved: Sequence[str], own: Sequence[str]) -> str:
    """Names the first difference of the classes of weights from a learner's."""
    before, now = next(pair for pair in zip_longest(saved, own) if pair[0] != pair[1])
    first = f"the first difference is {now!r}, was {before!r}"
    return f"the weights are of {counted(len(saved), 'class')}, here are {len(own)}; {first}"


def check_fit(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Raises RuntimeError unless a state has the model's names and shapes.

    load_state_dict raises one, too, but after it has copied all that fits.
    """
    own = model.state_dict()
    shared = own.keys() & state.keys()
    shapes = {
        name: [tuple(getattr(each[name], "shape", ())) for each in (state, own)] for name in own if name in shared
    }
    kinds = {
        "missing": [name for name in own if name not in shared and not name.endswith(".num_batches_tracked")],
        "unknown": [name for name in state if name not in shared],
        "of another shape": [f"{name} {found} for {here}" for name, (found, here) in shapes.items() if found != here],
    }
    if problems := [f"{len(names)} {kind}: {first_few(names)}" for kind, names in kinds.items() if names]:
        raise RuntimeError("; ".join(problems))


class _Placeholder:
    """Stands for an object of a class that torch does not load from a weight file, and ignores its contents."""

    def __new__(cls, *arguments: Any, **settings: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors in a safetensors file, or in the dicts of a file by torch.save, by name.

    Those of nested dicts, such as a training checkpoint's, have names with a dot: `state_dict.conv1.weight`. All other
    objects are ignored, and no code in the file runs. Raises FastpetsError if the file is unreadable or has no tensors.
    """
    try:
        contents = load(file.read_bytes()) if file.suffix == ".safetensors" else _load_pickled(file)
    except Exception as error:  # the file may have any content, and each reader raises errors of its own
        reason = f"{type(error).__name__}: {short_reason(error)}"
        raise FastpetsError(
            f"weights: {file}: not readable as weights ({reason}); expected a safetensors file, or one by torch.save"
        ) from None
    tensors = dict(_flattened(contents))
    if not tensors:
        found = "a whole model or another object" if isinstance(contents, _Placeholder) else type(contents).__name__
        raise FastpetsError(
            f"weights: {file}: {found}, expected tensors by parameter name; save model.state_dict() by torch.save"
        )
    return tensors


def _load_pickled(file: Path) -> Any:
    """Loads a file by torch.save. Placeholders replace objects other than tensors, numbers, strings and containers."""
    try:
        unknown = get_unsafe_globals_in_checkpoint(file)
    except ValueError:  # torch's format before 1.6; the training scripts of timm and torchvision save such an object
        unknown = ["argparse.Namespace"]
    with safe_globals([(_Placeholder, name) for name in unknown]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _flattened(contents: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(contents, torch.Tensor) and prefix:
        yield prefix, contents
    elif isinstance(contents, Mapping):
        for name, value in contents.items():
            yield from _flattened(value, f"{prefix}.{name}" if prefix else str(name))


def short_reason(error: BaseException) -> str:
    """The first 300 characters of an error's message, without line breaks; torch's name each parameter in a line."""
    return " ".join(str(error).split())[:300]

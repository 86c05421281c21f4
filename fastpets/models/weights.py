"""A model's weights, backbone and head, in a safetensors file."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from fastpets.errors import FastpetsError
from fastpets.utils.atomic import write_atomically


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes all parameters and buffers atomically."""
    # safetensors needs contiguous tensors that share no memory.
    state = {
        name: torch.empty(value.shape, dtype=value.dtype).copy_(value) for name, value in model.state_dict().items()
    }
    write_atomically(path, lambda staging: save_file(state, staging))


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads all parameters and buffers. Raises FastpetsError for another model's weights or an unreadable file."""
    try:
        model.load_state_dict(load(path.read_bytes()))  # load_file opens only paths in UTF-8
    except (OSError, SafetensorError, RuntimeError) as error:
        raise FastpetsError(
            f"{path}: {short_reason(error)}; expected the weights of a model of the same arch and number of classes"
        ) from None


def short_reason(error: BaseException) -> str:
    """The first 300 characters of an error's message, without line breaks; torch's name each parameter in a line."""
    return " ".join(str(error).split())[:300]

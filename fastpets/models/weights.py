"""A whole model's weights in a safetensors file."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fastpets.errors import FastpetsError
from fastpets.utils.atomic import write_atomically


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes all parameters and buffers atomically."""
    # safetensors takes contiguous tensors that share no memory.
    state = {
        name: torch.empty(value.shape, dtype=value.dtype).copy_(value) for name, value in model.state_dict().items()
    }
    write_atomically(path, lambda staging: save_file(state, staging))


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads all parameters and buffers. Raises FastpetsError for another model's weights or an unreadable file."""
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FastpetsError(f"{path}: {reason}; expected the weights of a model of the same kind") from None

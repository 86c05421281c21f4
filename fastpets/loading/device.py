"""The torch device that a name means."""

import re

import torch

from fastpets.errors import InvalidArgumentError


def resolve_device(device: str | torch.device) -> torch.device:
    """Returns the device: "auto" is the current GPU if there is one, else the CPU.

    Raises InvalidArgumentError for another kind of device and for a GPU that does not exist.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
        raise InvalidArgumentError(f"device: {str(device)!r}, expected auto, cpu, cuda or cuda:N")
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InvalidArgumentError(
                f"device: {device}, but torch finds no GPU; use device='cpu', or check the driver"
            )
        device = torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
        if device.index >= torch.cuda.device_count():
            raise InvalidArgumentError(f"device: {device}, but torch finds {torch.cuda.device_count()} GPUs")
    return device

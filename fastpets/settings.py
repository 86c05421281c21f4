"""What a Loader's arguments stand for, and one clear line for those that stand for nothing."""

from typing import get_args

import torch

from fastpets import kernels
from fastpets.config import POLICIES, Augment, Borders, CacheWhere, Output, PresizeMethod
from fastpets.errors import FastpetsError


def check_numbers(**numbers: int | None) -> None:
    """Raises FastpetsError for a number, by its name, that is below 1."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise FastpetsError(f"{name}: {value}, expected at least 1")


def check_words(**words: str) -> None:
    """Raises FastpetsError for a word, by its name, that is not one of those that it may be."""
    kinds = {"presize_method": PresizeMethod, "borders": Borders, "output": Output, "cache": CacheWhere}
    for name, value in words.items():
        if value not in get_args(kinds[name]):
            raise FastpetsError(f"{name}: {value!r}, expected one of {', '.join(get_args(kinds[name]))}")


def resolve_dtype(output: Output, dtype: torch.dtype) -> torch.dtype:
    """The type of the images. Raises FastpetsError if it is none that the kernels write."""
    if dtype not in kernels.DTYPES or not dtype.is_floating_point:
        raise FastpetsError(f"dtype: {dtype}, expected torch.float32, float16 or bfloat16")
    return torch.uint8 if output == "uint8" else dtype


def resolve_augment(augment: bool | str | Augment) -> Augment | None:
    """What training pictures undergo, or None. Raises FastpetsError for a name that is no policy's."""
    if isinstance(augment, str):
        if augment not in POLICIES:
            raise FastpetsError(
                f"augment: {augment!r}, expected an Augment, True, False or one of {', '.join(POLICIES)}"
            )
        return POLICIES[augment]
    return (Augment() if augment else None) if isinstance(augment, bool) else augment


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that a name stands for. Raises FastpetsError if it is a GPU that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise FastpetsError(f"device {device}: torch sees no GPU; use --device cpu, or mend the driver")
        device = torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
        if device.index >= torch.cuda.device_count():
            raise FastpetsError(f"device {device}: torch sees {torch.cuda.device_count()} GPUs, counted from 0")
    return device

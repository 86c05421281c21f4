"""The types of string parameters, and checks of arguments. Errors name the parameter."""

from numbers import Real
from typing import Any, Literal, get_args

from fastpets.errors import InvalidArgumentError

LabelFrom = Literal["auto", "name", "folder", "none"]
PresizeMethod = Literal["crop", "squish", "pad"]
Borders = Literal["reflect", "border", "zeros"]
Output = Literal["float", "uint8"]
Layout = Literal["NCHW", "NHWC"]
CacheWhere = Literal["none", "host", "device", "disk", "auto"]
DecoderName = Literal["auto", "dali"]
Decode = Literal["exact", "fast"]
OnBadFile = Literal["raise", "skip", "replace"]
FrozenNorms = Literal["train", "eval"]
Mix = Literal["none", "mixup", "cutmix", "both"]
TrackerName = Literal["tensorboard", "wandb", "mlflow"]


MAX_BATCH_SIZE = 65_535  # CUDA's limit of the third dimension of a grid, which is the batch in the Triton kernel
MAX_WORKERS = 1024
MAX_CACHE_GB = 1e6
MAX_SEED = 2**63 - 1


def check_number(name: str, value: Any) -> None:
    """Raises InvalidArgumentError unless `value` is a real number."""
    if not isinstance(value, Real):
        raise InvalidArgumentError(f"{name}: {value!r}, expected a number")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises InvalidArgumentError unless `value` is a number with `low` <= `value` <= `high`."""
    check_number(name, value)
    if not low <= value <= high:  # also catches NaN
        raise InvalidArgumentError(f"{name}: {value}, expected a value from {low} to {high}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raises InvalidArgumentError unless `value` is one of the strings of `choices`, a Literal type."""
    if value not in get_args(choices):
        raise InvalidArgumentError(f"{name}: {value!r}, expected one of {', '.join(get_args(choices))}")

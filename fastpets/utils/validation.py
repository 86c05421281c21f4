"""The types of string parameters, and checks of arguments. Errors name the parameter."""

from numbers import Integral, Real
from typing import Any, Literal, get_args

from fastpets.errors import InvalidArgumentError

LabelFrom = Literal["auto", "name", "folder", "none"]
Split = Literal["auto", "random", "stratified", "fastai"]
PresizeMethod = Literal["crop", "squish", "pad"]
Borders = Literal["reflect", "border", "zeros"]
Output = Literal["float", "uint8"]
Layout = Literal["NCHW", "NHWC"]
CacheWhere = Literal["none", "host", "device", "disk", "auto"]
DecoderName = Literal["auto", "dali"]
Decode = Literal["exact", "fast"]
OnBadFile = Literal["raise", "skip", "replace"]
FrozenNorms = Literal["train", "eval", "fixed"]
Mix = Literal["none", "mixup", "cutmix", "both"]
RecipeName = Literal["fastai", "fast", "strong"]
HeadName = Literal["fastai", "linear"]
TrackerName = Literal["tensorboard", "wandb", "mlflow"]


MAX_BATCH_SIZE = 65_535  # kernels.MAX_BATCH, without importing torch
MAX_WORKERS = 1024
MAX_CACHE_GB = 1e6
MAX_SEED = 2**63 - 1
MAX_EPOCHS = 100_000
MAX_TTA = 1000  # augmented versions of each image
MAX_TOP = 100_000  # classes of a prediction
VALID_SHARE = 0.2  # of the images validate by default


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


def check_split(split: Split, valid_share: float, k_fold: tuple[int, int] | None) -> None:
    """Raises InvalidArgumentError for arguments of a split that are wrong, or that contradict each other."""
    check_choice("split", split, Split)
    check_number("valid_share", valid_share)
    if not 0 < valid_share < 1:
        raise InvalidArgumentError(f"valid_share: {valid_share}, expected more than 0 and less than 1")
    if k_fold is None:
        return
    numbers = k_fold if isinstance(k_fold, tuple | list) else ()
    is_pair = len(numbers) == 2 and all(isinstance(number, Integral) for number in numbers)
    if not is_pair or not 0 <= numbers[0] < numbers[1] or numbers[1] < 2:
        raise InvalidArgumentError(f"k_fold: {k_fold!r}, expected (i, k): fold i, from 0 to k - 1, of k, at least 2")
    if split not in ("auto", "stratified"):
        raise InvalidArgumentError(f"split: {split!r}, but folds are stratified; leave it out")
    if valid_share != VALID_SHARE:
        raise InvalidArgumentError(f"valid_share: {valid_share}, but a fold's share is 1 / {numbers[1]}; leave it out")

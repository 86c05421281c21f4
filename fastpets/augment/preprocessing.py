"""Preprocessing of a model's input: what must be the same in training, validation, prediction, export and serving."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isfinite
from numbers import Integral
from typing import Any, Literal

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.utils.validation import Borders, Layout, Output, PresizeMethod, check_choice, check_range

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_PIXELS = 178_956_970  # half a gigabyte as RGB; Pillow refuses larger images as decompression bombs
# Smallest and largest value of the fields that are whole numbers.
LIMITS = {"size": (1, 16_384), "presize": (1, 16_384), "supersample": (1, 4), "max_pixels": (1, MAX_PIXELS)}

Dtype = Literal["float32", "float16", "bfloat16", "uint8"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes a model's input, apart from augmentation.

    Built and validated once, from a Loader's keyword arguments; saved whole with a model's weights; used unchanged by
    prediction, export and serving. Raises InvalidArgumentError for values out of range.

    Args:
        size: height and width of the output in pixels, 1 to 16384; one number means a square.
        presize: upper limit in pixels for the shorter side of the part of the image that is kept; larger images are
            shrunk by the smallest whole factor that meets it, but never below the output. Default: 4 times the
            output's shorter side.
        presize_method: how an image is fitted to the output's aspect ratio: "crop" keeps the largest region that
            fits, "squish" distorts the whole image, "pad" keeps it whole and fills the rest as `borders` says.
        borders: what lies beyond the image: "reflect", its mirror image; "border", its outermost pixels; "zeros",
            black.
        supersample: factor, 1 to 4, on the number of samples per output pixel and axis; 2 is less aliased, and slower.
        mean, std: normalisation of each of 3 channels, for values from 0 to 1.
        output: "float" for normalised values, "uint8" for 0-255. If `output` or `dtype` is "uint8", both are, whatever
            the other one is.
        dtype: type of the output; a torch.dtype or its name.
        layout: "NCHW" is (B, 3, H, W) in channels_last memory format, "NHWC" the same memory as (B, H, W, 3).
        max_pixels: images with more pixels are bad files. Default: 178,956,970, beyond which Pillow decodes no image.
    """

    size: tuple[int, int] = (224, 224)
    presize: int | None = None
    presize_method: PresizeMethod = "crop"
    borders: Borders = "reflect"
    supersample: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    output: Output = "float"
    dtype: Dtype = "float32"
    layout: Layout = "NCHW"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        size: Any = self.size
        self._set("size", tuple(size) if isinstance(size, Iterable) else (size, size))
        self._set("dtype", str(self.dtype).removeprefix("torch."))
        choices = {"presize_method": PresizeMethod, "borders": Borders, "output": Output, "dtype": Dtype}
        for name, literal in {**choices, "layout": Layout}.items():
            check_choice(name, getattr(self, name), literal)
        if "uint8" in (self.output, self.dtype):
            self._set("output", "uint8")
            self._set("dtype", "uint8")
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Checks the fields that are numbers, and converts those of NumPy to Python's."""
        if len(self.size) != 2:
            raise InvalidArgumentError(f"size: {self.size}, expected a number of pixels, or height and width")
        self._set("size", tuple(self._whole_number("size", side) for side in self.size))
        if self.presize is not None:
            self._set("presize", self._whole_number("presize", self.presize))
        for name in ("supersample", "max_pixels"):
            self._set(name, self._whole_number(name, getattr(self, name)))
        for name in ("mean", "std"):
            try:
                red, green, blue = map(float, getattr(self, name))
            except (TypeError, ValueError):
                message = f"{name}: {getattr(self, name)}, expected a number for each of 3 channels"
                raise InvalidArgumentError(message) from None
            self._set(name, (red, green, blue))
            if not all(map(isfinite, (red, green, blue))):
                raise InvalidArgumentError(f"{name}: {getattr(self, name)}, expected finite numbers")
        if 0 in self.std:
            raise InvalidArgumentError(f"std: {self.std}, expected numbers other than 0")

    @staticmethod
    def _whole_number(name: str, value: Any) -> int:
        if not isinstance(value, Integral):
            raise InvalidArgumentError(f"{name}: {value!r}, expected a whole number")
        check_range(name, int(value), *LIMITS[name])
        return int(value)

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and std of the three channels, or None for an output of 0-255."""
        return None if self.output == "uint8" else (self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises FastpetsError for fields that are missing or unknown."""
        expected = set(cls.__dataclass_fields__)
        if wrong := expected ^ set(fields):
            raise FastpetsError(f"preprocessing: {', '.join(sorted(wrong))} missing or unknown, expected all fields")
        return cls(**fields)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the only way to set a field of a frozen dataclass

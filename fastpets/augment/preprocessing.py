"""What a model sees of an image: the output's size, the normalisation and all else that must not change after training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.utils.validation import Borders, Layout, Output, PresizeMethod, check_choice, check_range

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_PIXELS = 178_956_970  # Pillow's own limit, beyond which it suspects a decompression bomb: half a gigabyte decoded
MAX_SIZE_PX = 16_384

Dtype = Literal["float32", "float16", "bfloat16", "uint8"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How images become a model's input, apart from augmentation.

    It is built once, from a Loader's keyword arguments, and validated then; a run saves it with the weights, and
    prediction, export and serving use it unchanged. Raises InvalidArgumentError for values that are not possible.

    Args:
        size: height and width of the output in pixels; one number means a square.
        presize: shorter side in pixels to which larger images are shrunk once decoded. Default: 4 times the output's.
        presize_method: what is kept of an image whose aspect ratio differs from the output's: "crop", the largest
            part that fits; "squish", all of it, distorted; "pad", all of it and what lies beyond its borders.
        borders: pixels beyond the image: "reflect", its mirror image; "border", its outermost pixels; "zeros", black.
        supersample: samples per output pixel and axis, 1 to 4: 2 is less aliased and slower.
        mean, std: of the normalisation, per channel, for values from 0 to 1.
        output: "float" for normalised values, "uint8" for 0-255. It follows from `dtype` if that is uint8.
        dtype: the output's type; a torch.dtype or its name.
        layout: "NCHW" is (B, 3, H, W) in channels_last memory format, "NHWC" the same memory as (B, H, W, 3).
        max_pixels: largest image that is accepted, in pixels; Pillow's own limit holds as well.
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
        self._set("size", (size, size) if isinstance(size, int) else tuple(int(side) for side in size))
        self._set("dtype", str(self.dtype).removeprefix("torch."))
        for name in ("mean", "std"):
            self._set(name, tuple(float(value) for value in getattr(self, name)))
        if self.dtype not in ("float32", "float16", "bfloat16", "uint8"):
            raise InvalidArgumentError(f"dtype: {self.dtype}, expected float32, float16, bfloat16 or uint8")
        choices = {"presize_method": PresizeMethod, "borders": Borders, "output": Output, "layout": Layout}
        for name, literal in choices.items():
            check_choice(name, getattr(self, name), literal)
        if "uint8" in (self.output, self.dtype):
            self._set("output", "uint8")
            self._set("dtype", "uint8")
        if len(self.size) != 2:
            raise InvalidArgumentError(f"size: {self.size}, expected a number of pixels, or height and width")
        for side in self.size:
            check_range("size", side, 1, MAX_SIZE_PX)
        if self.presize is not None:
            check_range("presize", self.presize, 1, MAX_SIZE_PX)
        check_range("supersample", self.supersample, 1, 4)
        check_range("max_pixels", self.max_pixels, 1, 2**31)
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise InvalidArgumentError(f"{name}: {getattr(self, name)}, expected a number for each of 3 channels")
        if 0 in self.std:
            raise InvalidArgumentError(f"std: {self.std}, expected numbers other than 0")

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and std, or None if the output keeps 0-255."""
        return None if self.output == "uint8" else (self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON can store them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises FastpetsError for fields that are missing or unknown."""
        expected = set(cls.__dataclass_fields__)
        if wrong := expected ^ set(fields):
            raise FastpetsError(f"preprocessing: {', '.join(sorted(wrong))} missing or unknown, expected all fields")
        return cls(**fields)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen for everyone else

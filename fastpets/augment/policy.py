"""Augmentation policies: which changes an image may undergo, how far and how often."""

from dataclasses import dataclass
from typing import Literal

from fastpets.utils.validation import check_range


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What a training image may undergo, each sample by draws of its own; the defaults are fastai's.

    Each change happens with probability `affine_p` (geometry) or `lighting_p` (values); with `one_of`, exactly one of
    those whose amount is not zero happens, or none, all equally likely. `flip_p`, `invert_p` and the crop are apart.
    Amounts are the largest ones; `mult` scales all but zoom, solarize and posterize.

    Args:
        rotate_deg: degrees either way.
        zoom: factor, at least 1, about a random point.
        warp: perspective, as the share of half a side by which a corner moves either way.
        shear_deg: degrees by which upright or level lines lean either way.
        translate: share of a side by which the image moves either way.
        min_scale: smallest share of the canvas's area that the random crop keeps.
        brightness, contrast: as fastai's max_lighting.
        gamma: the exponent is 1 + gamma at most, 1 / (1 + gamma) at least.
        solarize: values from 1 - solarize on, at most, become their negatives.
        posterize: bits dropped.
    """

    flip_p: float = 0.5
    rotate_deg: float = 10.0
    zoom: float = 1.1
    warp: float = 0.2
    shear_deg: float = 0.0
    translate: float = 0.0
    affine_p: float = 0.75
    min_scale: float = 0.75
    brightness: float = 0.2
    contrast: float = 0.2
    gamma: float = 0.0
    solarize: float = 0.0
    posterize: int = 0
    invert_p: float = 0.0
    lighting_p: float = 0.75
    mult: float = 1.0
    one_of: bool = False

    def __post_init__(self) -> None:
        for name in ("flip_p", "affine_p", "lighting_p", "invert_p", "solarize"):
            check_range(f"Augment.{name}", getattr(self, name), 0, 1)
        for name, low, most in (("zoom", 1, 10), ("min_scale", 0.01, 1), ("posterize", 0, 7), ("mult", 0, 10)):
            check_range(f"Augment.{name}", getattr(self, name), low, most)
        # Beyond 0.35 the warp alone may put a corner of the canvas behind the perspective's horizon.
        scaled = {"rotate_deg": 180.0, "warp": 0.35, "shear_deg": 80.0, "translate": 1.0, "gamma": 10.0}
        for name, high in {**scaled, "brightness": 0.999, "contrast": 0.999}.items():
            check_range(f"Augment.{name} * mult", getattr(self, name) * self.mult, 0, high)

    @property
    def changes(self) -> tuple[str, ...]:
        """The changes whose amounts are not zero."""
        sided = {"warp": self.warp, "shear": self.shear_deg, "translate": self.translate}
        single = {"rotate": self.rotate_deg, "zoom": self.zoom - 1, "brightness": self.brightness,
                  "contrast": self.contrast, "gamma": self.gamma, "solarize": self.solarize,
                  "posterize": self.posterize}  # fmt: skip
        names = [f"{name}_{axis}" for name, amount in sided.items() if amount for axis in "xy"]
        return (*(name for name, amount in single.items() if amount), *names)


# `trivial-geometric` picks one change an image, at any strength, as TrivialAugment does (Müller and Hutter, ICCV
# 2021, from whose wide space the ranges are), but from those alone that are a matrix or a table.
POLICIES = {
    "none": None,
    "fastai": Augment(),
    "trivial-geometric": Augment(
        one_of=True, rotate_deg=135, shear_deg=44.7, translate=0.14, zoom=1, warp=0, brightness=0.99, contrast=0,
        solarize=1, posterize=6,
    ),
}  # fmt: skip
Policy = Literal["none", "fastai", "trivial-geometric"]

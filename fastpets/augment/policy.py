"""Augmentation policies: which changes a training image may undergo, how far and how often."""

from dataclasses import dataclass
from typing import Literal

from fastpets.errors import InvalidArgumentError
from fastpets.utils.validation import check_range


@dataclass(frozen=True, kw_only=True)
class Augment:
    """An augmentation policy; the defaults are those of fastai's aug_transforms with min_scale=0.75.

    Each geometric change happens with probability `p_affine`, each change of tone with `p_lighting`, independently and
    with random parameters of each image's own. With `one_of`, one of the changes whose maximum is not zero happens, or
    none, all equally likely. Flip, invert and the random crop are separate.

    Args:
        p_flip: probability of a horizontal flip.
        max_rotate: degrees, either way.
        max_zoom: largest factor, at least 1, about a random point.
        max_warp: perspective; a corner moves by at most this share of half a side.
        max_shear: degrees by which vertical or horizontal lines lean, either way.
        max_translate: share of a side, either way.
        p_affine: probability of each of these changes.
        min_scale: smallest share of the canvas's area that the random crop keeps.
        max_lighting: sets both max_brightness and max_contrast, as in fastai.
        max_brightness, max_contrast: fastai's max_lighting for each alone.
        max_gamma: the exponent is from 1 / (1 + max_gamma) to 1 + max_gamma.
        max_solarize: values above a threshold are inverted; the threshold is at least 1 - max_solarize.
        max_posterize: number of low bits that are dropped, at most.
        p_invert: probability that all values are inverted.
        p_lighting: probability of each change of tone.
        mult: factor on all maxima but those of zoom, solarize and posterize.
        one_of: see above.

    Raises InvalidArgumentError for values that are not possible.
    """

    p_flip: float = 0.5
    max_rotate: float = 10.0
    max_zoom: float = 1.1
    max_warp: float = 0.2
    max_shear: float = 0.0
    max_translate: float = 0.0
    p_affine: float = 0.75
    min_scale: float = 0.75
    max_lighting: float | None = None
    max_brightness: float = 0.2
    max_contrast: float = 0.2
    max_gamma: float = 0.0
    max_solarize: float = 0.0
    max_posterize: int = 0
    p_invert: float = 0.0
    p_lighting: float = 0.75
    mult: float = 1.0
    one_of: bool = False

    def __post_init__(self) -> None:
        if self.max_lighting is not None:
            object.__setattr__(self, "max_brightness", self.max_lighting)
            object.__setattr__(self, "max_contrast", self.max_lighting)
        for name in ("p_flip", "p_affine", "p_lighting", "p_invert", "max_solarize"):
            check_range(f"Augment.{name}", getattr(self, name), 0, 1)
        limits = (("max_zoom", 1, 10), ("min_scale", 0.01, 1), ("max_posterize", 0, 7), ("mult", 0, 10))
        for name, low, high in limits:
            check_range(f"Augment.{name}", getattr(self, name), low, high)
        # Beyond 0.35 the warp alone may put a corner of the canvas behind the perspective's horizon.
        scaled = {"max_rotate": 180.0, "max_warp": 0.35, "max_shear": 80.0, "max_translate": 1.0, "max_gamma": 10.0}
        for name, most in {**scaled, "max_brightness": 0.999, "max_contrast": 0.999}.items():
            check_range(f"Augment.{name} * mult", getattr(self, name) * self.mult, 0, most)

    @property
    def changes(self) -> tuple[str, ...]:
        """Names of the changes whose maxima are not zero; warp, shear and translate come once per axis."""
        per_axis = {"warp": self.max_warp, "shear": self.max_shear, "translate": self.max_translate}
        single = {"rotate": self.max_rotate, "zoom": self.max_zoom - 1, "brightness": self.max_brightness,
                  "contrast": self.max_contrast, "gamma": self.max_gamma, "solarize": self.max_solarize,
                  "posterize": self.max_posterize}  # fmt: skip
        names = [f"{name}_{axis}" for name, most in per_axis.items() if most for axis in "xy"]
        return (*(name for name, most in single.items() if most), *names)


# "trivial-geometric" applies one change per image, at any strength, as TrivialAugment does (Müller and Hutter, ICCV
# 2021, whose wide ranges these are), but only changes that are a matrix or a lookup table.
POLICIES = {
    "none": None,
    "fastai": Augment(),
    "trivial-geometric": Augment(
        one_of=True, max_rotate=135, max_shear=44.7, max_translate=0.14, max_zoom=1, max_warp=0, max_brightness=0.99,
        max_contrast=0, max_solarize=1, max_posterize=6,
    ),
}  # fmt: skip
Policy = Literal["none", "fastai", "trivial-geometric"]


def as_policy(augment: bool | str | Augment) -> Augment | None:
    """Returns the policy that is meant: True is fastai's, a string one of POLICIES, False and "none" are None.

    Raises InvalidArgumentError for an unknown name.
    """
    if isinstance(augment, str):
        if augment not in POLICIES:
            raise InvalidArgumentError(
                f"augment: {augment!r}, expected an Augment, True, False or one of {', '.join(POLICIES)}"
            )
        return POLICIES[augment]
    return (Augment() if augment else None) if isinstance(augment, bool) else augment

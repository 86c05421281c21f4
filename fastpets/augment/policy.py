"""Augmentation policies: which random transforms are applied to training images, how strong and how often."""

from dataclasses import InitVar, dataclass, fields
from numbers import Integral
from typing import Literal

from fastpets.errors import InvalidArgumentError
from fastpets.utils.validation import check_number, check_range


@dataclass(frozen=True, kw_only=True, repr=False)
class Augment:
    """An augmentation policy. The defaults are those of fastai's `aug_transforms(min_scale=0.75)`.

    Parameters are drawn for each image. Operations are applied independently of each other, with probability
    `p_affine` (geometry) or `p_lighting` (tones). With `one_of`, one of the operations whose maximum is not zero is
    applied, or none, all equally likely. Warp, shear and translation are two operations each, one per axis. Flip,
    inversion and random crop are drawn separately, also with `one_of`.

    Raises InvalidArgumentError for values out of range.

    Args:
        p_flip: probability of a horizontal flip.
        max_rotate: largest rotation, in degrees, either way.
        max_zoom: largest zoom factor, at least 1, about a random point.
        max_warp: largest perspective warp: how far a corner moves, as a fraction of half a side, either way.
        max_shear: largest shear, in degrees, on either axis and either way.
        max_translate: largest translation, as a fraction of a side, on either axis and either way.
        p_affine: probability of rotation, zoom, warp, shear and translation, each.
        min_scale: smallest area of the random crop, as a fraction of the canvas's area.
        max_brightness, max_contrast: largest change, 0 to 1, as fastai's `max_lighting`.
        max_gamma: the exponent lies between 1 / (1 + max_gamma) and 1 + max_gamma.
        max_solarize: solarizing inverts values (0-1) above a threshold, which is drawn from 1 - max_solarize to 1.
        max_posterize: largest number of bits, of 8, that posterizing drops.
        p_invert: probability of inversion.
        p_lighting: probability of brightness, contrast, gamma, solarize and posterize, each.
        mult: factor of all maxima except those of zoom, solarize and posterize.
        one_of: applies at most one operation to an image, as TrivialAugment does.
        max_lighting: sets both max_brightness and max_contrast.
    """

    p_flip: float = 0.5
    max_rotate: float = 10.0
    max_zoom: float = 1.1
    max_warp: float = 0.2
    max_shear: float = 0.0
    max_translate: float = 0.0
    p_affine: float = 0.75
    min_scale: float = 0.75
    max_brightness: float = 0.2
    max_contrast: float = 0.2
    max_gamma: float = 0.0
    max_solarize: float = 0.0
    max_posterize: int = 0
    p_invert: float = 0.0
    p_lighting: float = 0.75
    mult: float = 1.0
    one_of: bool = False
    max_lighting: InitVar[float | None] = None

    def __post_init__(self, max_lighting: float | None) -> None:
        if max_lighting is not None:
            for name in ("max_brightness", "max_contrast"):
                object.__setattr__(self, name, max_lighting)  # the dataclass is frozen
        for field in fields(self):
            check_number(f"Augment.{field.name}", getattr(self, field.name))
        if not isinstance(self.max_posterize, Integral):
            raise InvalidArgumentError(f"Augment.max_posterize: {self.max_posterize}, expected a whole number")
        for name in ("p_flip", "p_affine", "p_lighting", "p_invert", "max_solarize"):
            check_range(f"Augment.{name}", getattr(self, name), 0, 1)
        unscaled = {"max_zoom": (1, 10), "min_scale": (0.01, 1), "max_posterize": (0, 7), "mult": (0, 10)}
        for name, (low, high) in unscaled.items():
            check_range(f"Augment.{name}", getattr(self, name), low, high)
        # A larger warp may move a corner of the canvas beyond the perspective's horizon.
        scaled = {"max_rotate": 180.0, "max_warp": 0.35, "max_shear": 80.0, "max_translate": 1.0, "max_gamma": 10.0}
        for name, high in {**scaled, "max_brightness": 0.999, "max_contrast": 0.999}.items():
            check_range(f"Augment.{name} * mult", getattr(self, name) * self.mult, 0, high)

    def __repr__(self) -> str:
        changed = [field for field in fields(self) if getattr(self, field.name) != field.default]
        return f"Augment({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in changed)})"

    @property
    def ops(self) -> tuple[str, ...]:
        """The operations whose maximum is not zero, by their names in `RandomParameters`.

        With `one_of` a random number chooses an operation by its index here: do not change the order.
        """
        one_parameter = {"rotate": self.max_rotate, "zoom": self.max_zoom - 1, "brightness": self.max_brightness,
                         "contrast": self.max_contrast, "gamma": self.max_gamma, "solarize": self.max_solarize,
                         "posterize": self.max_posterize}  # fmt: skip
        per_axis = {"warp": self.max_warp, "shear": self.max_shear, "translate": self.max_translate}
        names = [f"{name}_{axis}" for name, maximum in per_axis.items() if maximum for axis in "xy"]
        return (*(name for name, maximum in one_parameter.items() if maximum), *names)


PolicyName = Literal["none", "fastai", "trivial-geometric"]
# "trivial-geometric" applies one operation to an image, at any strength, as TrivialAugment does (Müller and Hutter,
# ICCV 2021), with the wide ranges of that paper, but only operations that are a matrix or a lookup table.
POLICIES: dict[PolicyName, Augment | None] = {
    "none": None,
    "fastai": Augment(),
    "trivial-geometric": Augment(
        one_of=True, max_rotate=135, max_shear=44.7, max_translate=0.14, max_zoom=1, max_warp=0, max_brightness=0.99,
        max_contrast=0, max_solarize=1, max_posterize=6,
    ),
}  # fmt: skip


def as_policy(augment: bool | str | Augment | None) -> Augment | None:
    """Converts a Loader's argument `augment` to a policy; None means no augmentation.

    True is the default policy; a string is a key of POLICIES. Raises InvalidArgumentError for other values.
    """
    if isinstance(augment, bool):
        return Augment() if augment else None
    if isinstance(augment, str) and augment in POLICIES:
        return POLICIES[augment]
    if augment is None or isinstance(augment, Augment):
        return augment
    raise InvalidArgumentError(
        f"augment: {augment!r}, expected an Augment, True, False or one of {', '.join(POLICIES)}"
    )

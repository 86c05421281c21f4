"""Augmentation policies: validation, and what a Loader's argument stands for."""

from dataclasses import replace
from typing import get_args

import pytest

from fastpets.augment.policy import POLICIES, Augment, PolicyName, as_policy
from fastpets.errors import InvalidArgumentError


@pytest.mark.parametrize(
    "wrong",
    [{"p_flip": 1.5}, {"max_zoom": 0.5}, {"max_warp": 0.2, "mult": 2}, {"max_contrast": 1.0},
     {"min_scale": float("nan")}, {"max_posterize": 8}, {"max_shear": 90}, {"max_solarize": -0.1}, {"max_gamma": -1},
     {"max_rotate": "10"}, {"mult": "2"}, {"p_flip": None}, {"max_posterize": 2.5}],
)  # fmt: skip
def test_values_out_of_range_are_rejected_by_the_parameters_name(wrong: dict) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^Augment\.{next(iter(wrong))}.*: .*, expected"):
        Augment(**wrong)


def test_max_lighting_sets_brightness_and_contrast() -> None:
    augment = Augment(max_lighting=0.4)
    assert augment == Augment(max_brightness=0.4, max_contrast=0.4)
    assert replace(augment, max_contrast=0.1) == Augment(max_brightness=0.4, max_contrast=0.1)
    with pytest.raises(InvalidArgumentError, match=r"Augment\.max_brightness"):
        Augment(max_lighting=1)


def test_ops_are_the_operations_whose_maximum_is_not_zero() -> None:
    none = Augment(max_rotate=0, max_zoom=1, max_warp=0, max_lighting=0)
    assert none.ops == ()
    assert Augment().ops == ("rotate", "zoom", "brightness", "contrast", "warp_x", "warp_y")
    everything = Augment(max_shear=1, max_translate=0.1, max_gamma=1, max_solarize=1, max_posterize=1)
    more = {"shear_x", "shear_y", "translate_x", "translate_y", "gamma", "solarize", "posterize"}
    assert set(everything.ops) == set(Augment().ops) | more


def test_a_policy_is_described_by_what_differs_from_the_default() -> None:
    assert repr(Augment()) == "Augment()"
    assert repr(Augment(max_rotate=30, one_of=True)) == "Augment(max_rotate=30, one_of=True)"


def test_an_argument_stands_for_a_policy() -> None:
    augment = Augment(max_rotate=3)
    assert as_policy(augment) is augment
    assert as_policy(True) == as_policy("fastai") == Augment()
    assert as_policy(False) is as_policy(None) is as_policy("none") is None
    assert tuple(POLICIES) == get_args(PolicyName)


@pytest.mark.parametrize("wrong", ["strong", 1, Augment])
def test_other_arguments_are_rejected(wrong: object) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"^augment: .*, expected an Augment, True, False or one of none, fas"
    ):
        as_policy(wrong)

"""Preprocessing: conversion and validation of its fields, and its form in JSON."""

import json
import re

import numpy as np
import pytest
import torch

from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from fastpets.errors import FastpetsError, InvalidArgumentError


@pytest.mark.parametrize("size", [96, np.int64(96), (96, 96), [96, 96], np.array([96, 96])])
def test_a_size_is_one_number_or_height_and_width(size: object) -> None:
    preprocessing = Preprocessing(size=size)
    assert preprocessing.size == (96, 96)
    assert [type(side) for side in preprocessing.size] == [int, int]


@pytest.mark.parametrize("fields", [{"output": "uint8"}, {"dtype": "uint8"}, {"dtype": torch.uint8}])
def test_output_or_dtype_uint8_sets_both_and_drops_the_normalisation(fields: dict) -> None:
    preprocessing = Preprocessing(**fields)
    assert (preprocessing.output, preprocessing.dtype) == ("uint8", "uint8")
    assert preprocessing.normalization is None


def test_a_dtype_may_be_torchs() -> None:
    preprocessing = Preprocessing(dtype=torch.bfloat16)
    assert preprocessing.dtype == "bfloat16"
    assert preprocessing.normalization == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size: 0, expected a value from 1 to 16384"),
        ({"size": (224, 20_000)}, "size: 20000, expected a value from 1 to 16384"),
        ({"size": 224.5}, "size: 224.5, expected a whole number"),
        ({"size": (1, 2, 3)}, "size: (1, 2, 3), expected a number of pixels, or height and width"),
        ({"presize": 0}, "presize: 0, expected a value from 1 to 16384"),
        ({"supersample": 5}, "supersample: 5, expected a value from 1 to 4"),
        ({"supersample": 1.5}, "supersample: 1.5, expected a whole number"),
        ({"max_pixels": 0}, "max_pixels: 0, expected a value from 1 to 178956970"),
        ({"max_pixels": 178_956_971}, "max_pixels: 178956971, expected a value from 1 to 178956970"),
        ({"max_pixels": None}, "max_pixels: None, expected a whole number"),
        ({"mean": (0.5, 0.5)}, "mean: (0.5, 0.5), expected a number for each of 3 channels"),
        ({"mean": 0.5}, "mean: 0.5, expected a number for each of 3 channels"),
        ({"std": (1, 0, 1)}, "std: (1.0, 0.0, 1.0), expected numbers other than 0"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean: (0.5, nan, 0.5), expected finite numbers"),
        ({"std": (1, 1, float("inf"))}, "std: (1.0, 1.0, inf), expected finite numbers"),
        ({"dtype": "float64"}, "dtype: 'float64', expected one of float32, float16, bfloat16, uint8"),
        ({"presize_method": "fit"}, "presize_method: 'fit', expected one of crop, squish, pad"),
        ({"borders": "mirror"}, "borders: 'mirror', expected one of reflect, border, zeros"),
        ({"output": "int8"}, "output: 'int8', expected one of float, uint8"),
        ({"layout": "CHW"}, "layout: 'CHW', expected one of NCHW, NHWC"),
    ],
)
def test_impossible_values_are_rejected_by_the_parameters_name(wrong: dict, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$"):
        Preprocessing(**wrong)


def test_json_returns_the_same_preprocessing() -> None:
    preprocessing = Preprocessing(size=(96, 160), presize=300, borders="zeros", supersample=2, mean=(0.5,) * 3)
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize("wrong", ["missing", "unknown"])
def test_json_with_other_fields_is_rejected(wrong: str) -> None:
    fields = Preprocessing().to_dict()
    if wrong == "missing":
        del fields["supersample"]
    else:
        fields["supersample_x"] = 1
    with pytest.raises(FastpetsError, match=r"preprocessing: supersample.* missing or unknown"):
        Preprocessing.from_dict(fields)

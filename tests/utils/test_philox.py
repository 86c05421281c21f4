"""Philox gives the published output, and numbers that depend on the key and the counter only."""

import numpy as np
import pytest

from fastpets.utils import philox

# Random123's known answers for philox4x32 with 10 rounds: counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def parsed(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint64)


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, output: str) -> None:
    assert (philox.philox4x32(parsed(counter), parsed(key)) == parsed(output)).all()


def test_a_number_does_not_depend_on_how_many_are_drawn() -> None:
    ids = np.arange(5)
    few, many = (philox.uniforms(philox.AUGMENT, 3, 1, ids, 0, count) for count in (3, 21))
    assert (few == many[:, :3]).all()


def test_an_items_numbers_do_not_depend_on_the_other_items() -> None:
    together = philox.uniforms(philox.AUGMENT, 3, 1, np.array([8, 2, 5]), 0, 4)
    assert (together[1] == philox.uniforms(philox.AUGMENT, 3, 1, np.array([2]), 0, 4)[0]).all()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"seed": 1 << 32},
        {"epoch": 1},
        {"occurrences": 1},
        {"purpose": philox.ORDER},
        {"ids": np.array([8])},
    ],
)
def test_each_part_of_the_key_and_the_counter_changes_the_numbers(other: dict) -> None:
    given = {
        "purpose": philox.AUGMENT,
        "seed": 0,
        "epoch": 0,
        "ids": np.array([7]),
        "occurrences": 0,
        "count": 4,
    }
    assert (philox.uniforms(**given) != philox.uniforms(**{**given, **other})).all()


def test_numbers_are_uniform_between_0_and_1() -> None:
    numbers = philox.uniforms(philox.AUGMENT, 0, 0, np.arange(100_000), 0, 4)
    assert numbers.min() > 0
    assert numbers.max() < 1
    deviation = 1 / np.sqrt(12 * len(numbers))  # standard deviation of the mean of that many uniform numbers
    assert (abs(numbers.mean(axis=0) - 0.5) < 5 * deviation).all()
    shares = np.stack([np.histogram(column, bins=10, range=(0, 1))[0] for column in numbers.T])
    assert (abs(shares - 10_000) < 5 * np.sqrt(10_000 * 0.9)).all()


def test_numpys_global_random_state_is_unchanged() -> None:
    before = np.random.get_state()[1].copy()
    philox.uniforms(philox.AUGMENT, 0, 0, np.arange(9), 0, 4)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("num_items", [0, 1, 10, 2**16 + 1])
def test_a_permutation_has_each_item_once(num_items: int) -> None:
    order = philox.permutation(num_items, purpose=philox.ORDER, seed=3)
    assert order.dtype == np.int64
    assert (np.sort(order) == np.arange(num_items)).all()


def test_a_permutation_never_changes() -> None:
    assert philox.permutation(8, purpose=philox.ORDER, seed=0).tolist() == [3, 6, 4, 1, 5, 7, 2, 0]

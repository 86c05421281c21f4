"""Philox gives the published output, and numbers that depend on the key and the counter only."""

import numpy as np
import pytest

from fastpets.utils import philox
from fastpets.utils.compiled import compiled

# Random123's known answers for philox4x32 with 10 rounds: counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@compiled
def of_items(stream: philox.Stream, num_items: int, count: int) -> np.ndarray:
    """The first `count` numbers of items 0, 1, 2, ...: (num_items, count)."""
    numbers = np.empty((num_items, count))
    for i in range(num_items):
        numbers[i] = philox.uniforms(stream, i, 0, count)
    return numbers


def parsed(text: str) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(int(word, 16)) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, output: str) -> None:
    assert philox.philox4x32(parsed(counter), parsed(key)) == parsed(output)


def test_a_number_does_not_depend_on_how_many_are_drawn() -> None:
    stream = philox.stream(philox.AUGMENT, 3, 1)
    few, many = (philox.uniforms(stream, 4, 0, count) for count in (3, 21))
    assert (few == many[:3]).all()


def test_compiled_numbers_are_those_of_python() -> None:
    for seed in (0, 2**64 - 1):
        stream = philox.stream(philox.SPLIT, seed, 2**32 - 1)
        assert (of_items(stream, 3, 9) == [philox.uniforms(stream, i, 0, 9) for i in range(3)]).all()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"seed": 1 << 32},
        {"epoch": 1},
        {"occurrence": 1},
        {"purpose": philox.ORDER},
        {"i": 8},
    ],
)
def test_each_part_of_the_key_and_the_counter_changes_the_numbers(other: dict) -> None:
    def numbers(purpose: int = philox.AUGMENT, seed: int = 0, epoch: int = 0, i: int = 7, occurrence: int = 0):
        return philox.uniforms(philox.stream(purpose, seed, epoch), i, occurrence, 4)

    assert (numbers() != numbers(**other)).all()


def test_seeds_count_modulo_2_to_the_64() -> None:
    assert philox.stream(philox.ORDER, -1) == philox.stream(philox.ORDER, 2**64 - 1)


def test_numbers_are_uniform_between_0_and_1() -> None:
    numbers = of_items(philox.stream(philox.AUGMENT, 0, 0), 100_000, 4)
    assert numbers.min() > 0
    assert numbers.max() < 1
    deviation = 1 / np.sqrt(12 * len(numbers))  # standard deviation of the mean of that many uniform numbers
    assert (abs(numbers.mean(axis=0) - 0.5) < 5 * deviation).all()
    shares = np.stack([np.histogram(column, bins=10, range=(0, 1))[0] for column in numbers.T])
    assert (abs(shares - 10_000) < 5 * np.sqrt(10_000 * 0.9)).all()


def test_numpys_global_random_state_is_unchanged() -> None:
    before = np.random.get_state()[1].copy()
    of_items(philox.stream(philox.AUGMENT, 0, 0), 9, 4)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("num_items", [0, 1, 10, 2**16 + 1])
def test_a_permutation_has_each_item_once(num_items: int) -> None:
    order = philox.permutation(num_items, purpose=philox.ORDER, seed=3)
    assert order.dtype == np.int64
    assert (np.sort(order) == np.arange(num_items)).all()


def test_a_permutation_never_changes() -> None:
    assert philox.permutation(8, purpose=philox.ORDER, seed=0).tolist() == [3, 6, 4, 1, 5, 7, 2, 0]

"""Counter-based random numbers: Philox 4x32-10.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The output
is a function of a key and a counter. So the random parameters of an image depend on (seed, epoch, item id, occurrence)
only, not on the order of calls, the thread or the process. There is no global state.
"""

from typing import NamedTuple

import numpy as np

from fastpets.utils.compiled import compilable, compiled

u64 = np.uint64
ROUNDS = 10
MULTIPLIERS = u64(0xD2511F53), u64(0xCD9E8D57)
KEY_STEPS = u64(0x9E3779B9), u64(0xBB67AE85)
LOW_MASK, WORD_BITS = u64(0xFFFFFFFF), u64(32)

# The purpose of a number, part of the second counter word: independent streams under one seed.
AUGMENT, ORDER, SPLIT, SAMPLER = range(4)


class Stream(NamedTuple):
    """The numbers of one purpose under one seed, in one epoch: what all items have in common, as words of 64 bits."""

    purpose: np.uint64
    seed: np.uint64
    epoch: np.uint64


def stream(purpose: int, seed: int, epoch: int = 0) -> Stream:
    """The stream of a purpose. `seed` counts modulo 2**64, and `epoch` is below 2**32."""
    return Stream(u64(purpose), u64(seed % 2**64), u64(epoch))


@compilable
def philox4x32(counter: tuple, key: tuple) -> tuple:
    """Philox 4x32-10 of a counter of four words and a key of two: four words. All are uint64 below 2**32."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        product0, product1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1 = (product1 >> WORD_BITS) ^ c1 ^ k0, product1 & LOW_MASK
        c2, c3 = (product0 >> WORD_BITS) ^ c3 ^ k1, product0 & LOW_MASK
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW_MASK, (k1 + KEY_STEPS[1]) & LOW_MASK
    return c0, c1, c2, c3


@compilable
def block(stream: Stream, i: int, occurrence: int, number: int) -> tuple:
    """Words 4 * number to 4 * number + 3 of item `i` (below 2**32) in a stream: four uint64, each below 2**32.

    `occurrence` counts how often the item came before in the epoch, modulo 2**16.
    """
    purpose = (stream.purpose << u64(16)) | (u64(occurrence) & u64(0xFFFF))
    key = stream.seed & LOW_MASK, stream.seed >> WORD_BITS
    return philox4x32((u64(number), purpose, u64(i), stream.epoch), key)


@compilable
def uniforms(stream: Stream, i: int, occurrence: int, count: int) -> np.ndarray:
    """The first `count` uniform random numbers in (0, 1) of item `i` in a stream, for the arguments of `block`."""
    numbers = np.empty(count)
    for number in range(0, count, 4):
        words = block(stream, i, occurrence, number // 4)
        for j in range(min(4, count - number)):
            numbers[number + j] = (words[j] + 0.5) / 2.0**32
    return numbers


def permutation(num_items: int, *, purpose: int, seed: int, epoch: int = 0) -> np.ndarray:
    """A random permutation (num_items,) int64 that does not depend on the machine or on NumPy's version."""
    return np.argsort(_sort_keys(stream(purpose, seed, epoch), num_items), kind="stable")


@compiled
def _sort_keys(stream: Stream, num_items: int) -> np.ndarray:
    """A random number (num_items,) uint64 for each item."""
    keys = np.empty(num_items, np.uint64)
    for i in range(num_items):
        words = block(stream, i, 0, 0)
        keys[i] = words[0] << WORD_BITS | words[1]
    return keys

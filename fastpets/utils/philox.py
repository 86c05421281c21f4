"""Counter-based random numbers: Philox 4x32-10, vectorised.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The output
is a function of a key and a counter. So the random parameters of an image depend on (seed, epoch, item id, occurrence)
only, not on the order of calls, the thread or the process. There is no global state.
"""

import numpy as np

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
ROUNDS = 10
LOW_MASK = np.uint64(0xFFFFFFFF)
WORD_BITS = np.uint64(32)

# The purpose of a number, part of the second counter word: independent streams under one seed.
AUGMENT, ORDER, SPLIT, SAMPLER = range(4)


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Philox 4x32-10 of counters (..., 4) and keys (..., 2), both of 32-bit values: (..., 4) uint32."""
    c0, c1, c2, c3 = np.moveaxis(counter.astype(np.uint64), -1, 0)
    k0, k1 = np.moveaxis(key.astype(np.uint64), -1, 0)
    for _ in range(ROUNDS):
        product0, product1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> WORD_BITS) ^ c1 ^ k0,
            product1 & LOW_MASK,
            (product0 >> WORD_BITS) ^ c3 ^ k1,
            product0 & LOW_MASK,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW_MASK, (k1 + KEY_STEPS[1]) & LOW_MASK
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(
    purpose: int, seed: int, epoch: int, ids: np.ndarray, occurrences: int | np.ndarray, count: int
) -> np.ndarray:
    """Random 32-bit words (B, count) uint32, `count` for each of the ids (B,), which are below 2**32.

    `occurrences`, a scalar or (B,), counts how often the id came before in the epoch, modulo 2**16. Column j does not
    depend on `count`.
    """
    blocks = -(-count // 4)
    counter = np.empty((len(ids), blocks, 4), np.uint64)
    counter[..., 0] = np.arange(blocks)
    counter[..., 1] = ((purpose << 16) | (np.asarray(occurrences) & 0xFFFF))[..., None]
    counter[..., 2] = ids[:, None]
    counter[..., 3] = epoch
    key = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint64)
    return philox4x32(counter, key).reshape(len(ids), blocks * 4)[:, :count]


def uniforms(
    purpose: int, seed: int, epoch: int, ids: np.ndarray, occurrences: int | np.ndarray, count: int
) -> np.ndarray:
    """Uniform random numbers in (0, 1), (B, count) float64; for the arguments see `words`."""
    return (words(purpose, seed, epoch, ids, occurrences, count) + 0.5) / 2.0**32


def permutation(num_items: int, *, purpose: int, seed: int, epoch: int = 0) -> np.ndarray:
    """A random permutation (num_items,) int64 that does not depend on the machine or on NumPy's version."""
    keys = np.empty(num_items, np.uint64)
    for start in range(0, num_items, 2**16):  # in chunks, since intermediate arrays are 20 times as large
        ids = np.arange(start, min(start + 2**16, num_items))
        high, low = words(purpose, seed, epoch, ids, 0, 2).astype(np.uint64).T
        keys[ids] = high << WORD_BITS | low
    return np.argsort(keys, kind="stable")

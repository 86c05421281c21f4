"""Random numbers that depend on a key and a counter alone: Philox 4x32-10, vectorised.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. What is
drawn for an image is then a function of (seed, epoch, item id, how often the item came before), whoever draws it,
in whatever order, on however many threads; the caller's random state is never touched.
"""

import numpy as np

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)

# The second counter word tells apart what is drawn for different purposes under one seed.
AUGMENT, ORDER, SPLIT, SAMPLER, HASH = range(5)


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Philox 4x32-10: counters (..., 4) and keys (..., 2), both of 32-bit values, to (..., 4) uint32."""
    c0, c1, c2, c3 = np.moveaxis(counter.astype(np.uint64), -1, 0)
    k0, k1 = np.moveaxis(key.astype(np.uint64), -1, 0)
    for _ in range(ROUNDS):
        product0, product1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> HALF) ^ c1 ^ k0,
            product1 & LOW,
            (product0 >> HALF) ^ c3 ^ k1,
            product0 & LOW,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW, (k1 + KEY_STEPS[1]) & LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(purpose: int, seed: int, epoch: int, ids: np.ndarray, occurrence: int | np.ndarray, count: int) -> np.ndarray:
    """`count` random words for each of the (B,) `ids`, which are below 2**32: (B, count) uint32.

    `occurrence`, one or (B,), counts the earlier draws of the same id in the epoch, modulo 2**16. Position j of a row
    never changes when `count` grows.
    """
    blocks = -(-count // 4)
    counter = np.empty((len(ids), blocks, 4), np.uint64)
    counter[..., 0] = np.arange(blocks)
    counter[..., 1] = ((purpose << 16) | (np.asarray(occurrence) & 0xFFFF))[..., None]
    counter[..., 2] = ids[:, None]
    counter[..., 3] = epoch
    key = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint64)
    return philox4x32(counter, key).reshape(len(ids), blocks * 4)[:, :count]


def uniforms(
    purpose: int, seed: int, epoch: int, ids: np.ndarray, occurrence: int | np.ndarray, count: int
) -> np.ndarray:
    """`words` as numbers in (0, 1): (B, count) float64."""
    return (words(purpose, seed, epoch, ids, occurrence, count) + 0.5) / 2.0**32

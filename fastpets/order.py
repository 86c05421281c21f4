"""Which items come when: the order of an epoch, cut into batches, and the split into training and validation."""

import numpy as np

from fastpets import philox


def epoch_order(num_items: int, *, shuffle: bool, seed: int, epoch: int) -> np.ndarray:
    """Item ids (num_items,) int64 in the order of the epoch: a permutation by (seed, epoch), or as they are."""
    if not shuffle:
        return np.arange(num_items)
    return permutation(num_items, purpose=philox.ORDER, seed=seed, epoch=epoch)


def batches(order: np.ndarray, batch_size: int, *, drop_last: bool) -> list[np.ndarray]:
    """The order cut into batches; an incomplete last one is dropped if asked, unless it is the only one."""
    cut = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return cut[:-1] if drop_last and len(cut) > 1 and len(cut[-1]) < batch_size else cut


def num_batches(num_items: int, batch_size: int, *, drop_last: bool) -> int:
    """How many batches `batches` gives, without an order at hand."""
    full, rest = divmod(num_items, batch_size)
    return full + (rest > 0 and not (drop_last and full > 0))


def permutation(num_items: int, *, purpose: int, seed: int, epoch: int = 0) -> np.ndarray:
    """A permutation (num_items,) int64 that every machine and every version of NumPy agrees on."""
    keys = philox.uniforms(purpose, seed, epoch, np.arange(num_items), 0, 2)
    return np.lexsort((keys[:, 1], keys[:, 0]))  # the second number decides between equal first ones

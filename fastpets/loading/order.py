"""Which items come when: the order of an epoch, and how it is cut into batches for one process or for several."""

from collections.abc import Iterable

import numpy as np
import torch

from fastpets.errors import FastpetsError
from fastpets.utils import philox


def epoch_order(num_items: int, *, shuffle: bool, seed: int, epoch: int) -> np.ndarray:
    """Item ids (num_items,) int64 in the order of the epoch: a permutation by (seed, epoch), or as they are."""
    if not shuffle:
        return np.arange(num_items)
    return philox.permutation(num_items, purpose=philox.ORDER, seed=seed, epoch=epoch)


def sampled_order(sampler: Iterable[int], num_items: int, *, seed: int, epoch: int) -> np.ndarray:
    """The item ids, int64, that a torch sampler gives for an epoch.

    What it draws from torch's global generator is a function of (seed, epoch), and that generator is left as it was; so
    all processes draw alike. Raises FastpetsError for an id that is no item's.
    """
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    own_seed, _ = philox.words(philox.SAMPLER, seed, epoch, np.zeros(1, np.int64), 0, 2)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(own_seed))
        ids = np.fromiter(sampler, np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < num_items:
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise FastpetsError(f"sampler: item {wrong}, expected 0 to {num_items - 1}, one for each item of the source")
    return ids


def occurrences(ids: np.ndarray) -> np.ndarray:
    """How often each id came before in the order (N,) int64: 0, and more where a sampler repeats it."""
    by_id = np.argsort(ids, kind="stable")
    places = np.arange(len(ids))
    begins = np.append(True, np.diff(ids[by_id]) != 0)[: len(ids)]
    count = np.empty_like(places)
    count[by_id] = places - np.maximum.accumulate(np.where(begins, places, 0))
    return count


def batch_slices(
    num_items: int,
    batch_size: int,
    *,
    drop_last: bool,
    even: bool = False,
    rank: int = 0,
    world_size: int = 1,
    first: int = 0,
) -> list[slice]:
    """The parts of an order of `num_items`, from place `first` on, that are the batches of process `rank`.

    All processes together take `batch_size * world_size` items a step, by turns. If less is left at the end, it is
    dropped with `drop_last`, unless it is all there is. With `even`, as training needs it, all processes take equally
    many steps of equally many items, none of them a single item after larger batches, which batch norm cannot train
    on: so up to 2 * world_size - 1 items may be dropped. Else each item comes once, in one of the processes.
    """
    step = batch_size * world_size
    slices = [slice(start + rank, min(start + step, num_items), world_size) for start in range(first, num_items, step)]
    if slices and (left := (num_items - first) % step):
        start, is_all = num_items - left, left == num_items
        share = left // world_size
        too_few = even and (share == 0 or (share == 1 and batch_size > 1 and not is_all))
        if (drop_last and not is_all) or too_few:
            slices.pop()
        elif even:
            slices[-1] = slice(start + rank, start + share * world_size, world_size)
        elif rank >= left:
            slices.pop()
    return slices

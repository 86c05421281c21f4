"""The order of the items in each epoch, its split into batches and ranks, and the state to resume from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed
from torch.utils.data import WeightedRandomSampler

from fastpets.data.dataset import NO_LABEL, ImageDataset
from fastpets.errors import FastpetsError, InvalidArgumentError, counted
from fastpets.utils import philox
from fastpets.utils.validation import check_range

STATE_VERSION = 1
_GENERATOR_LOCK = threading.Lock()  # all threads that plan an epoch share torch's global generator


class EpochPlan(NamedTuple):
    """The order of one epoch and this rank's batches of it.

    Attributes:
        epoch: number of the epoch, from 0.
        ids: (M,) int64, the item ids of all ranks, in order.
        occurrences: (M,) int64, how often each id comes before in `ids`: 0 unless a sampler repeats items.
        batches: slices of `ids`, one for each batch of this rank. All ranks together have consumed `ids[: stop]` when
            the batch `slice(start, stop, world_size)` is delivered.
    """

    epoch: int
    ids: np.ndarray
    occurrences: np.ndarray
    batches: list[slice]


class EpochSampler:
    """Plans the epochs of a Loader, one after another, and keeps how much of the latest one was delivered.

    Iterating over it gives the item ids of this rank's next epoch, in order, without starting that epoch.

    Args:
        usable: (N,) bool, the items whose headers are good.
        batch_size: images per batch and rank.
        shuffle: whether each epoch is a new permutation.
        sampler: iterable of item ids for each epoch, instead of `shuffle`.
        drop_last: whether an incomplete last batch is dropped, unless it is the only one.
        even: whether all ranks take equally many batches of equal sizes, as training needs.
        rank, world_size: which of how many processes this is; None for what torch.distributed says.
        seed: of the permutations.
        fingerprint: returns a digest of the dataset, which `load_state_dict` compares with the saved one.
    """

    def __init__(
        self,
        usable: np.ndarray,
        *,
        batch_size: int,
        shuffle: bool,
        sampler: Iterable[int] | None,
        drop_last: bool,
        even: bool,
        rank: int | None,
        world_size: int | None,
        seed: int,
        fingerprint: Callable[[], str],
    ) -> None:
        self.usable, self.torch_sampler, self.shuffle, self.seed = usable, sampler, shuffle, seed
        self.batch_size, self.drop_last, self.even = batch_size, drop_last, even
        self.rank, self.world_size, self.fingerprint = rank, world_size, fingerprint
        resolve_ranks(rank, world_size)  # checks them
        # The next epoch, how many of its items were delivered before, and, after a resume, its order.
        self.epoch, self._first = 0, 0
        self._resumed_ids: np.ndarray | None = None
        # The epoch that `state_dict` describes, how many of its items all ranks have, and its order.
        self._state_epoch, self._delivered = 0, 0
        self._state_ids: np.ndarray | None = None
        self._latest: EpochPlan | None = None

    def __len__(self) -> int:
        """Items of this rank in a whole epoch. Raises TypeError if `sampler` has no length."""
        num_items = self._num_items()
        return sum(len(range(num_items)[batch]) for batch in self._batches(num_items))

    def __iter__(self) -> Iterator[int]:
        plan = self.next_plan()
        for batch in plan.batches:
            yield from plan.ids[batch].tolist()

    def num_batches(self) -> int:
        """Batches of this rank in a whole epoch. Raises TypeError if `sampler` has no length."""
        return len(self._batches(self._num_items()))

    def warning(self) -> str | None:
        """A line if the training set is smaller than a batch, or if a last batch of one image is dropped, else None."""
        if not self.even or self.torch_sampler is not None:
            return None
        _, world_size = resolve_ranks(self.rank, self.world_size)
        num_items, batch_size = self._num_items(), self.batch_size
        images = counted(num_items, "training image")
        each = " for each process" if world_size > 1 else ""
        if num_items < world_size:
            return f"{images} for {world_size} processes: an epoch has no batch; use fewer processes"
        if num_items < batch_size * world_size:
            return (
                f"{images}, expected at least batch_size={batch_size}{each}: an epoch is one "
                "smaller batch; lower batch_size for more steps"
            )
        if num_items % (batch_size * world_size) // world_size == 1 and batch_size > 1 and not self.drop_last:
            return (
                f"{images} in batches of {batch_size}{each}: the last batch would hold one image, "
                "which batch norm cannot train on, and is dropped; choose another batch_size to use every image"
            )
        return None

    def next_plan(self) -> EpochPlan:
        """Plans the next epoch, or the rest of the epoch that a loaded state was in, without starting it."""
        with _GENERATOR_LOCK:
            kept = self._generator.get_state() if self._generator is not None else None
            plan = self._plan(self.epoch, self._first, self._resumed_ids)
            if self._generator is not None and kept is not None:
                self._generator.set_state(kept)
        return plan

    def start_epoch(self) -> EpochPlan:
        """Starts the next epoch, or the rest of the epoch that a loaded state was in, and returns its plan."""
        with _GENERATOR_LOCK:
            epoch, first, resumed_ids = self.epoch, self._first, self._resumed_ids
            # No call in between: CPython raises KeyboardInterrupt before or after these assignments, not among them.
            self.epoch, self._first, self._resumed_ids = epoch + 1, 0, None
            plan = self._plan(epoch, first, resumed_ids)
        self._latest = plan
        self.advance(plan, first)
        return plan

    def _plan(self, epoch: int, first: int, resumed_ids: np.ndarray | None) -> EpochPlan:
        ids = self._order(epoch) if resumed_ids is None else resumed_ids
        repeats = self.torch_sampler is not None
        counts = occurrences(ids) if repeats else np.broadcast_to(np.int64(0), ids.shape)
        return EpochPlan(epoch, ids, counts, self._batches(len(ids), first))

    def advance(self, plan: EpochPlan, delivered: int) -> None:
        """Records that all ranks have the first `delivered` items, if no other epoch was started since."""
        if plan is self._latest:
            self._state_epoch, self._delivered, self._state_ids = plan.epoch, delivered, plan.ids

    def finish(self, plan: EpochPlan) -> None:
        """Records that an epoch is complete, if no other epoch was started since."""
        if plan is self._latest:
            self._state_epoch, self._delivered, self._state_ids = self.epoch, self._first, None

    def set_epoch(self, epoch: int) -> None:
        """Makes `epoch` the next one. If a loaded state is within that epoch, the rest of the epoch is next."""
        if epoch != self.epoch:
            self._first, self._resumed_ids = 0, None
        self.epoch = self._state_epoch = epoch
        self._delivered, self._state_ids = self._first, self._resumed_ids

    def skip_batches(self, num_batches: int) -> None:
        """Makes the next epoch begin after so many more of its batches. Raises InvalidArgumentError if it has fewer."""
        left = len(self.next_plan().batches)
        check_range("num_batches", num_batches, 0, left)
        splits_itself = hasattr(self.torch_sampler, "num_replicas")
        world_size = 1 if splits_itself else resolve_ranks(self.rank, self.world_size)[1]
        self._first += num_batches * self.batch_size * world_size
        self._latest = None
        self._state_epoch, self._delivered, self._state_ids = self.epoch, self._first, self._resumed_ids

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs: numbers, strings and tensors, equal on all ranks without a `sampler`."""
        ids = self._state_ids if self.torch_sampler is not None else None
        return {
            "version": STATE_VERSION,
            "fingerprint": self.fingerprint(),
            "seed": self.seed,
            "epoch": self._state_epoch,
            "delivered": self._delivered,
            "num_items": int(self.usable.sum()),
            "sampled_ids": torch.from_numpy(ids) if ids is not None else None,
            "generator": self._generator.get_state() if self._generator is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state` was taken, whatever the batch size or number of ranks.

        Raises FastpetsError if the state has another version, or belongs to another dataset or kind of sampler.
        """
        if state.get("version") != STATE_VERSION:
            raise FastpetsError(
                f"loader state: version {state.get('version')}, expected {STATE_VERSION}; start from scratch"
            )
        if state["num_items"] != (here := int(self.usable.sum())):
            raise FastpetsError(
                f"loader state: {counted(state['num_items'], 'usable image')}, but this dataset has {here}; load "
                "the same images"
            )
        if state["fingerprint"] != self.fingerprint():
            raise FastpetsError(
                "loader state: saved for a dataset with other paths or labels; load the same images in the same order"
            )
        ids, in_epoch = state["sampled_ids"], state["delivered"] > 0
        if (self._generator is None) != (state["generator"] is None) or (
            in_epoch and (self.torch_sampler is None) != (ids is None)
        ):
            raise FastpetsError("loader state: taken with another kind of sampler; give the same sampler")
        self.seed, self.epoch, self._first = state["seed"], state["epoch"], state["delivered"]
        self._latest = None
        self._state_epoch, self._delivered = self.epoch, self._first
        self._resumed_ids = self._state_ids = None if ids is None else ids.numpy()
        if self._generator is not None:
            self._generator.set_state(state["generator"])

    @property
    def _generator(self) -> torch.Generator | None:
        """The sampler's own generator, if it has one."""
        return getattr(self.torch_sampler, "generator", None)

    def _num_items(self) -> int:
        return int(self.usable.sum()) if self.torch_sampler is None else len(self.torch_sampler)  # type: ignore[arg-type]

    def _order(self, epoch: int) -> np.ndarray:
        """Item ids (M,) int64 of all ranks in the order of an epoch."""
        num_items = len(self.usable)
        if self.torch_sampler is not None:
            return sampled_order(self.torch_sampler, num_items, seed=self.seed, epoch=epoch)
        ids = epoch_order(num_items, shuffle=self.shuffle, seed=self.seed, epoch=epoch)
        return ids[self.usable[ids]]

    def _batches(self, num_items: int, first: int = 0) -> list[slice]:
        splits_itself = hasattr(self.torch_sampler, "num_replicas")  # a DistributedSampler, or one like it
        rank, world_size = (0, 1) if splits_itself else resolve_ranks(self.rank, self.world_size)
        return batch_slices(
            num_items,
            self.batch_size,
            drop_last=self.drop_last,
            even=self.even,
            rank=rank,
            world_size=world_size,
            first=first,
        )


def epoch_order(num_items: int, *, shuffle: bool, seed: int, epoch: int) -> np.ndarray:
    """Returns item ids (num_items,) int64: 0, 1, 2, ..., or a permutation that depends on (seed, epoch) alone."""
    if not shuffle:
        return np.arange(num_items)
    return philox.permutation(num_items, purpose=philox.ORDER, seed=seed, epoch=epoch)


def sampled_order(sampler: Iterable[int], num_items: int, *, seed: int, epoch: int) -> np.ndarray:
    """Returns the item ids, int64, that a torch sampler gives for an epoch.

    A sampler that uses torch's global generator finds it seeded by (seed, epoch), so that all ranks draw the same ids;
    the caller's state is restored. Raises InvalidArgumentError for an id outside [0, num_items).
    """
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    own_seed = philox.block(philox.stream(philox.SAMPLER, seed, epoch), 0, 0, 0)[0]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(own_seed))  # torch.manual_seed would seed the GPUs, too
        ids = np.fromiter(sampler, np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < num_items:
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise InvalidArgumentError(f"sampler: item id {wrong}, expected 0 to {num_items - 1}, the items of the source")
    return ids


def occurrences(ids: np.ndarray) -> np.ndarray:
    """Returns how often each of the ids (N,) comes before in them: (N,) int64."""
    by_id = np.argsort(ids, kind="stable")
    indices = np.arange(len(ids))
    starts = np.append(True, np.diff(ids[by_id]) != 0)[: len(ids)]
    count = np.empty_like(indices)
    count[by_id] = indices - np.maximum.accumulate(np.where(starts, indices, 0))
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
    """Returns the slices of an order of `num_items`, from index `first` on, that are the batches of one rank.

    All ranks together take `batch_size * world_size` items per step, interleaved. An incomplete last step is dropped
    with `drop_last`, unless it is the only one. With `even`, as training needs it, all ranks take equally many batches
    of equal sizes, and no batch of a single image follows larger ones, since batch norm cannot train on it: up to
    `2 * world_size - 1` items are dropped. Otherwise every item comes once, on one of the ranks.
    """
    step = batch_size * world_size
    slices = [slice(start + rank, min(start + step, num_items), world_size) for start in range(first, num_items, step)]
    if slices and (left := (num_items - first) % step):
        start, is_only = num_items - left, left == num_items
        per_rank = left // world_size
        too_few = even and (per_rank == 0 or (per_rank == 1 and batch_size > 1 and not is_only))
        if (drop_last and not is_only) or too_few:
            slices.pop()
        elif even:
            slices[-1] = slice(start + rank, start + per_rank * world_size, world_size)
        elif rank >= left:
            slices.pop()
    return slices


def resolve_ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Returns rank and world size: as given, else those of torch.distributed, else 0 and 1.

    Raises InvalidArgumentError if only one is given, or the rank is not in [0, world_size).
    """
    if (rank is None) != (world_size is None):
        raise InvalidArgumentError(f"rank: {rank} with world_size={world_size}, expected both or neither")
    if rank is None or world_size is None:
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if is_distributed else (0, 1)
    if not 0 <= rank < world_size:
        raise InvalidArgumentError(f"rank: {rank}, expected 0 to {world_size - 1}, below world_size")
    return rank, world_size


def make_sampler(
    dataset: ImageDataset,
    usable: np.ndarray,
    *,
    trains: bool,
    batch_size: int = 64,
    shuffle: bool | None = None,
    sampler: Iterable[int] | str | None = None,
    drop_last: bool | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    seed: int = 0,
) -> EpochSampler:
    """Returns the EpochSampler for a Loader's arguments, whose defaults depend on whether it `trains`."""
    return EpochSampler(
        usable,
        batch_size=batch_size,
        shuffle=trains if shuffle is None else shuffle,
        sampler=as_sampler(sampler, dataset.labels, usable),
        drop_last=trains if drop_last is None else drop_last,
        even=trains and shuffle is not False,
        rank=rank,
        world_size=world_size,
        seed=seed,
        fingerprint=partial(getattr, dataset, "fingerprint"),  # computed when it is needed; can be pickled
    )


def as_sampler(sampler: Iterable[int] | str | None, labels: np.ndarray, usable: np.ndarray) -> Iterable[int] | None:
    """Returns the sampler itself, or torch's WeightedRandomSampler for "balanced": all classes equally likely.

    An epoch of "balanced" has as many items as are usable and labelled. Raises InvalidArgumentError for other strings,
    and if no image has a label.
    """
    if not isinstance(sampler, str):
        return sampler
    if sampler == "balanced":
        candidates = usable & (labels != NO_LABEL)
        if not candidates.any():
            raise InvalidArgumentError("sampler: 'balanced', but no image has a label; leave it out, or give labels")
        counts = np.bincount(labels[candidates], minlength=1)
        weights = np.where(candidates, 1 / np.maximum(counts[np.maximum(labels, 0)], 1), 0)
        return WeightedRandomSampler(weights.tolist(), int(candidates.sum()))
    raise InvalidArgumentError(f"sampler: {sampler!r}, expected a torch sampler of item ids, or 'balanced'")

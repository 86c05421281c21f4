"""Where a loader is: which epoch, in what order, how far into it; and how to go on there another time."""

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from fastpets.data.dataset import NO_LABEL
from fastpets.errors import FastpetsError
from fastpets.loading import order
from fastpets.loading.settings import resolve_ranks

_BEGINNING = threading.Lock()  # loops in several threads begin one after another: torch's generator is one for all


class Course(NamedTuple):
    """An epoch's number, the ids (N,) of its items in order, and the parts of that order that are this process's
    batches, each of which ends where all processes together are after it."""

    number: int
    ids: np.ndarray
    batches: list[slice]


class Position:
    """The order of a loader's epochs, from the one that begins next, and what was delivered of the latest.

    Args:
        usable: (N,) which of the items are no bad files by their headers.
        sampler: gives the ids of each epoch, in place of `shuffle`, or None.
        even: whether all processes must take equally many items.
        ranks: rank and world size, or None twice, for what torch.distributed says.
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
        ranks: tuple[int | None, int | None],
        seed: int,
    ) -> None:
        self.usable, self.sampler, self.shuffle, self.seed = usable, sampler, shuffle, seed
        self.batch_size, self.drop_last, self.even, self.ranks = batch_size, drop_last, even, ranks
        self.epoch, self.first = 0, 0  # what begins next, and at which item
        self.resumed_ids: np.ndarray | None = None
        self.latest, self.delivered = 0, 0  # the epoch that a state speaks of, and how many of its items all had
        self.course: Course | None = None  # the one that began last
        self.latest_ids: np.ndarray | None = None  # its items, as long as it is the one that a state speaks of

    def num_batches(self) -> int:
        """Batches of this process in a whole epoch. Raises TypeError if the sampler does not know its length."""
        return len(self._slices(self._num_items()))

    def __len__(self) -> int:
        """ImageDataset of this process in a whole epoch."""
        num_items = self._num_items()
        return sum(len(range(num_items)[part]) for part in self._slices(num_items))

    def oddity(self) -> str | None:
        """What a user should know of a training set that is less than a batch, or is not delivered whole."""
        if not self.even or self.sampler is not None:
            return None
        num_items, wanted = self._num_items(), self.batch_size
        if num_items < wanted:
            return (
                f"{num_items} images to train on, expected a batch of {wanted}: each epoch is one step on a smaller "
                "one; lower batch_size for more steps"
            )
        if num_items % wanted == 1 and wanted > 1 and not self.drop_last:
            return (
                f"the last of {num_items} images would be a batch of its own, which batch norm cannot train on: one "
                "is left out of each epoch; choose another batch_size to have all"
            )
        return None

    def begin(self) -> Course:
        """The next epoch, or the rest of the one in which a state was loaded."""
        with _BEGINNING:
            number, first, resumed = self.epoch, self.first, self.resumed_ids
            # In one step, which an interrupt finds done or not begun.
            self.epoch, self.first, self.resumed_ids = number + 1, 0, None
            ids = self._ids(number) if resumed is None else resumed
        course = Course(number, ids, self._slices(len(ids), first))
        self.course = course
        self.reached(course, first)
        return course

    def reached(self, course: Course, delivered: int) -> None:
        """Notes that so many items of an epoch were delivered, if it is the one that began last."""
        if course is self.course:
            self.latest, self.delivered, self.latest_ids = course.number, delivered, course.ids

    def finished(self, course: Course) -> None:
        """Notes that an epoch is over."""
        if course is self.course:
            self.latest, self.delivered, self.latest_ids = self.epoch, self.first, None

    def set_epoch(self, epoch: int) -> None:
        """Makes `epoch` the next to begin; if a state was loaded in that epoch, it still goes on there."""
        if epoch != self.epoch:
            self.first, self.resumed_ids = 0, None
        self.epoch, self.latest, self.delivered, self.latest_ids = epoch, epoch, self.first, self.resumed_ids

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs. The same in all processes, but for what a sampler keeps."""
        generator = getattr(self.sampler, "generator", None)
        sampled = self.latest_ids if self.sampler is not None else None
        return {
            "seed": self.seed,
            "epoch": self.latest,
            "delivered": self.delivered,
            "num_items": int(self.usable.sum()),
            "sampled_ids": torch.from_numpy(sampled) if sampled is not None else None,
            "generator": generator.get_state() if generator is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Has the next epoch begin where `state` was taken. Raises FastpetsError if that was among other items or
        with another kind of sampler."""
        sampled = state["sampled_ids"]
        if state["num_items"] != (here := int(self.usable.sum())):
            raise FastpetsError(
                f"state of a loader of {state['num_items']} usable images, but here are {here}; give the same source"
            )
        generator, under_way = getattr(self.sampler, "generator", None), state["delivered"] > 0
        if (generator is None) != (state["generator"] is None) or (
            under_way and (self.sampler is None) != (sampled is None)
        ):
            raise FastpetsError("state of a loader with another kind of sampler; give the same sampler")
        self.seed, self.epoch, self.first = state["seed"], state["epoch"], state["delivered"]
        self.course = None
        self.latest, self.delivered = self.epoch, self.first
        self.resumed_ids = self.latest_ids = None if sampled is None else sampled.numpy()
        if generator is not None:
            generator.set_state(state["generator"])

    def _num_items(self) -> int:
        return int(self.usable.sum()) if self.sampler is None else len(self.sampler)  # type: ignore[arg-type]

    def _ids(self, epoch: int) -> np.ndarray:
        """The order of the epoch that begins: item ids, int64; of all processes together."""
        num_items = len(self.usable)
        if self.sampler is not None:
            return order.sampled_order(self.sampler, num_items, seed=self.seed, epoch=epoch)
        ids = order.epoch_order(num_items, shuffle=self.shuffle, seed=self.seed, epoch=epoch)
        return ids[self.usable[ids]]

    def _slices(self, num_items: int, first: int = 0) -> list[slice]:
        has_its_share = hasattr(self.sampler, "num_replicas")  # a DistributedSampler, or one like it
        rank, world_size = (0, 1) if has_its_share else resolve_ranks(*self.ranks)
        return order.batch_slices(
            num_items,
            self.batch_size,
            drop_last=self.drop_last,
            even=self.even,
            rank=rank,
            world_size=world_size,
            first=first,
        )


def resolve_sampler(
    sampler: Iterable[int] | str | None, labels: np.ndarray, usable: np.ndarray
) -> Iterable[int] | None:
    """A sampler as given, or torch's for "balanced": as many items as are usable, all classes equally likely."""
    if sampler == "balanced":
        countable = usable & (labels != NO_LABEL)
        counts = np.bincount(labels[countable], minlength=1)
        weights = np.where(countable, 1 / np.maximum(counts[np.maximum(labels, 0)], 1), 0)
        return WeightedRandomSampler(weights.tolist(), int(countable.sum()))
    if isinstance(sampler, str):
        raise FastpetsError(f"sampler: {sampler!r}, expected a torch sampler of item ids, or 'balanced'")
    return sampler

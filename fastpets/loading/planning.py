"""Batches as they are planned: which images, and the matrix and lookup table of each, before any file is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import Preprocessing
from fastpets.augment.transforms import Transforms, transforms
from fastpets.data.headers import ImageHeaders
from fastpets.loading.bad_files import BadFiles
from fastpets.loading.sampler import EpochPlan

REPLACEMENT = 0x8000  # bit of the occurrence count of a replacement, so that its random parameters are its own


class PlannedBatch(NamedTuple):
    """B images and what is to be done to each.

    Attributes:
        ids: (B,) int64 item ids.
        occurrences: (B,) int64, how often each came before in the epoch, with REPLACEMENT set where the image stands in
            for a bad file.
        transforms: their matrices and lookup tables, with random parameters that were drawn when this was planned.
        end: how many items of the epoch all ranks together have after this batch.
    """

    ids: np.ndarray
    occurrences: np.ndarray
    transforms: Transforms
    end: int

    def select(self, rows: np.ndarray) -> PlannedBatch:
        """The images at `rows`, indices or a mask; nothing is drawn again."""
        return PlannedBatch(self.ids[rows], self.occurrences[rows], self.transforms.select(rows), self.end)

    def with_row(self, row: int, other: PlannedBatch) -> PlannedBatch:
        """This batch with the single image of `other` at `row`."""
        ids, occurrences = self.ids.copy(), self.occurrences.copy()
        ids[row], occurrences[row] = other.ids[0], other.occurrences[0]
        return PlannedBatch(ids, occurrences, self.transforms.replace(row, other.transforms), self.end)


@dataclass(frozen=True, kw_only=True, eq=False)
class Planner:
    """Plans the batches of one epoch: draws each image's random parameters and composes its transforms, once.

    `shrink_for` is the output size (height, width) for which large images are shrunk: the preprocessing's, or that for
    which a cache was filled.
    """

    headers: ImageHeaders
    preprocessing: Preprocessing
    shrink_for: tuple[int, int]
    augment: Augment | None
    seed: int
    epoch: int

    def batches(self, plan: EpochPlan, bad_files: BadFiles) -> Iterator[PlannedBatch]:
        """The batches of this rank. Files known to be bad are left out or replaced, as `bad_files` is set to."""
        for batch in plan.batches:
            ids, counts = plan.ids[batch].copy(), plan.occurrences[batch].copy()
            is_bad = bad_files.known(ids)
            if is_bad.any() and bad_files.replaces:
                ids[is_bad] = [bad_files.replacement_for(i) for i in ids[is_bad].tolist()]
                counts[is_bad] |= REPLACEMENT
            elif is_bad.any():
                ids, counts = ids[~is_bad], counts[~is_bad]
            yield self.batch(ids, counts, batch.stop)

    def replacement(self, i: int, occurrence: int) -> PlannedBatch:
        """Item `i` as a batch of one, in place of an item that had this occurrence count."""
        return self.batch(np.array([i]), np.array([occurrence | REPLACEMENT]), 0)

    def batch(self, ids: np.ndarray, occurrences: np.ndarray, end: int = 0) -> PlannedBatch:
        """Items `ids` (B,) with their transforms."""
        todo = transforms(
            ids,
            self.headers.heights[ids],
            self.headers.widths[ids],
            self.preprocessing,
            shrink_for=self.shrink_for,
            augment=self.augment,
            seed=self.seed,
            epoch=self.epoch,
            occurrences=occurrences,
        )
        return PlannedBatch(ids, occurrences, todo, end)

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

# Bit of the occurrence count of a replacement, so that its random parameters differ from those of the image's own turn.
# Neighbouring bad files share one replacement, with equal pixels.
REPLACEMENT = 0x8000


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

    def select(self, positions: np.ndarray) -> PlannedBatch:
        """The images at `positions`, indices or a mask, with the same random parameters."""
        chosen = self.transforms.select(positions)
        return PlannedBatch(self.ids[positions], self.occurrences[positions], chosen, self.end)

    def with_image(self, position: int, other: PlannedBatch) -> PlannedBatch:
        """This batch with the single image of `other` at `position`."""
        ids, occurrences = self.ids.copy(), self.occurrences.copy()
        ids[position], occurrences[position] = other.ids[0], other.occurrences[0]
        return PlannedBatch(ids, occurrences, self.transforms.replace(position, other.transforms), self.end)


@dataclass(frozen=True, kw_only=True, eq=False)
class Planner:
    """Plans the batches of one epoch: draws each image's random parameters and composes its transforms, once.

    `shrink_for` is the output size (height, width) for which large images are shrunk: the preprocessing's, or with a
    cache the one for which the Loader was made.
    """

    headers: ImageHeaders
    preprocessing: Preprocessing
    shrink_for: tuple[int, int]
    augment: Augment | None
    seed: int
    epoch: int

    def batches(self, plan: EpochPlan, bad_files: BadFiles) -> Iterator[PlannedBatch]:
        """The batches of this rank. Files known to be bad are left out or replaced, as `on_bad_file` says.

        A batch of which no file is left is left out, too.
        """
        for batch in plan.batches:
            ids, occurrences = plan.ids[batch].copy(), plan.occurrences[batch].copy()
            is_bad = bad_files.known(ids)
            if is_bad.any() and bad_files.replaces:
                ids[is_bad] = [bad_files.replacement_for(i) for i in ids[is_bad].tolist()]
                occurrences[is_bad] |= REPLACEMENT
            elif is_bad.any():
                ids, occurrences = ids[~is_bad], occurrences[~is_bad]
            if len(ids):
                yield self.batch(ids, occurrences, batch.stop)

    def replacement(self, i: int, occurrence: int) -> PlannedBatch:
        """Item `i` as a batch of one, in place of an item that had this occurrence count."""
        return self.batch(np.array([i]), np.array([occurrence | REPLACEMENT]), 0)

    def batch(self, ids: np.ndarray, occurrences: np.ndarray, end: int) -> PlannedBatch:
        """Items `ids` (B,) with their transforms."""
        image_transforms = transforms(
            ids,
            self.headers.heights[ids],
            self.headers.widths[ids],
            self.preprocessing,
            orientations=self.headers.orientations[ids],
            shrink_for=self.shrink_for,
            augment=self.augment,
            seed=self.seed,
            epoch=self.epoch,
            occurrences=occurrences,
        )
        return PlannedBatch(ids, occurrences, image_transforms, end)

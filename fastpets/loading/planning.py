"""Batches as they are planned: which images, before any file is read, and the transforms that each will have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
    """B images of an epoch. Their random parameters follow from the epoch, the id and the occurrence count.

    Attributes:
        ids: (B,) int64 item ids.
        occurrences: (B,) int64, how often each came before in the epoch, with REPLACEMENT set where the image stands in
            for a bad file.
        end: how many items of the epoch all ranks together have after this batch.
    """

    ids: np.ndarray
    occurrences: np.ndarray
    end: int

    def select(self, positions: np.ndarray) -> PlannedBatch:
        """The images at `positions`, indices or a mask."""
        return PlannedBatch(self.ids[positions], self.occurrences[positions], self.end)

    def with_replacement(self, position: int, i: int) -> PlannedBatch:
        """This batch with item `i` at `position`, in place of a bad file."""
        ids, occurrences = self.ids.copy(), self.occurrences.copy()
        ids[position] = i
        occurrences[position] |= REPLACEMENT
        return PlannedBatch(ids, occurrences, self.end)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans the batches of one epoch, and composes the transforms of their images.

    `labels` (N,) int64 are those of all items. `shrink_for` is the output size (height, width) for which large images
    are shrunk: the preprocessing's, or with a cache the one for which the Loader was made.
    """

    # Planners of one Loader are compared, which has the same headers and labels in all epochs.
    headers: ImageHeaders = field(compare=False)
    labels: np.ndarray = field(compare=False)
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
            planned = PlannedBatch(plan.ids[batch].copy(), plan.occurrences[batch], batch.stop)
            is_bad = bad_files.known(planned.ids)
            if is_bad.any() and bad_files.replaces:
                for position in np.flatnonzero(is_bad).tolist():
                    other = bad_files.replacement_for(int(planned.ids[position]))
                    planned = planned.with_replacement(position, other)
            elif is_bad.any():
                planned = planned.select(~is_bad)
            if len(planned.ids):
                yield planned

    def transforms(self, ids: np.ndarray, occurrences: np.ndarray) -> Transforms:
        """The transforms of items (B,) that came before as often as `occurrences` (B,) say. Threads may share this."""
        return transforms(
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

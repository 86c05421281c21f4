"""What spoils training quietly: doubles across the split, tiny or unequal classes, labels that differ in case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fastpets.loading.display import to_pixels
from fastpets.utils.progress import track

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader

VERY_UNEQUAL = 10  # times as many images in the largest class as in the smallest
ALIKE = 3  # of 128 bits that may differ: what another JPEG quality or a smaller copy changes
BLOCK = 2**22  # comparisons at a time
MOST_LISTED = 5


def of(train: Loader, valid: Loader) -> Iterator[str]:
    """A line for each doubt about a data set."""
    classes = train.classes
    labels = np.concatenate([loader.dataset.labels[loader.headers.usable] for loader in (train, valid)])
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    if single := [classes[label] for label in np.flatnonzero(counts == 1)]:
        yield f"{len(single)} classes have one image alone: {_some(single)}; add images, or leave them out"
    by_spelling: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        by_spelling[name.strip().casefold()].append(name)
    if alike := [" and ".join(map(repr, names)) for names in by_spelling.values() if len(names) > 1]:
        yield f"labels that differ in case or spaces alone: {_some(alike)}; make them one if they mean one class"
    validated = np.bincount(valid.dataset.labels[valid.headers.usable], minlength=len(classes))
    if untested := [classes[label] for label in np.flatnonzero((validated == 0) & (counts > 1))]:
        yield f"{len(untested)} classes have no image to validate with: {_some(untested)}; see --split-seed"
    trained = np.bincount(train.dataset.labels[train.headers.usable], minlength=len(classes))
    if trained.min() > 0 and trained.max() > VERY_UNEQUAL * trained.min():
        names = [f"{classes[label]} {trained[label]}" for label in (trained.argmax(), trained.argmin())]
        yield f"very unequal classes: {names[0]} images to train on, {names[1]}; see --balanced and --class-weights"
    pairs = doubles(train, valid)
    if pairs:
        shown = _some([f"{train.dataset.paths[i]} and {valid.dataset.paths[j]}" for i, j in pairs])
        yield f"{len(pairs)} images to validate are also trained on, or look it: {shown}; keep one of each"


def doubles(train: Loader, valid: Loader) -> list[tuple[int, int]]:
    """Pairs of items, of training and of validation, that look alike, one for each of validation."""
    (ids, bits), (valid_ids, valid_bits) = (fingerprints(loader) for loader in (train, valid))
    found = []
    step = max(1, BLOCK // max(1, len(ids)))
    for start in range(0, len(valid_ids), step):
        part = valid_bits[start : start + step]
        differing = np.bitwise_count(part[:, None] ^ bits[None]).sum(-1)
        best = differing.argmin(1)
        for j in np.flatnonzero(differing[np.arange(len(part)), best] <= ALIKE).tolist():
            found.append((int(ids[best[j]]), int(valid_ids[start + j])))
    return found


def fingerprints(loader: Loader) -> tuple[np.ndarray, np.ndarray]:
    """Item ids (N,) and the difference hash of each image, (N, 2) uint64: which of 8 x 8 grey blocks are lighter than
    their neighbours to the right and below."""
    small = loader.like(
        loader.dataset, size=(9, 9), presize_method="squish", augment=False, sampler=None, shuffle=False,
        output="uint8", supersample=2, on_bad_file="skip", drop_last=False,
    )  # fmt: skip
    found, ids = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)]
    for batch in track(small, "comparing images", len(small)):
        grey = to_pixels(batch.images, small.preprocessing).astype(np.int32).sum(-1)
        right = grey[:, :8, 1:] > grey[:, :8, :-1]
        below = grey[:, 1:, :8] > grey[:, :-1, :8]
        flat = np.stack([right.reshape(len(grey), 64), below.reshape(len(grey), 64)], axis=1)
        found.append(np.packbits(flat, axis=-1).view(np.uint64)[..., 0])
        ids.append(batch.ids)
    return np.concatenate(ids), np.concatenate(found)


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:MOST_LISTED]) + (
        f" and {len(texts) - MOST_LISTED} more" if len(texts) > MOST_LISTED else ""
    )

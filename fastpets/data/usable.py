"""The usable images of a data set."""

import numpy as np

from fastpets.data.dataset import ImageDataset
from fastpets.utils.system import resolve_num_workers


def usable_images(
    dataset: ImageDataset, max_pixels: int, num_workers: int | None = None
) -> tuple[ImageDataset, dict[str, str]]:
    """The images whose headers are good and that have at most `max_pixels`, and the problems of the others by path.

    Headers that are not read yet are read by `num_workers` threads.
    """
    dataset = dataset.scanned(resolve_num_workers(num_workers))
    assert dataset.headers is not None
    headers = dataset.headers.limited(max_pixels)
    return dataset.select(np.flatnonzero(headers.usable)), dict(headers.problems)

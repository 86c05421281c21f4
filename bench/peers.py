"""The rows of the loading benchmarks: this project's loader, other libraries' loaders, and decoding alone.

Each row is a function of the paths, their labels and the number of threads or worker processes. Those that
`bench_growth.py` varies also take the output size or the batch size. A row returns an iterable; each pass over it is an
epoch of batches of float images and labels. Optional libraries are imported where they are used.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.peer_loaders import BATCH_SIZE, SIZE, dali_native, fastai, opencv, timm, torchvision
from fastpets import pipelines
from fastpets.augment.policy import Augment
from fastpets.data.dataset import ImageDataset
from fastpets.loading.loader import Loader

Peer = Callable[..., Iterable[Any]]


def fastpets(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    size: int = SIZE,
    batch_size: int = BATCH_SIZE,
    **settings: Any,
) -> Iterable[Any]:
    """This project's loader with its default augmentation, that of fastai's chapter; `settings` go to Loader."""
    dataset = ImageDataset(tuple(paths), np.array(labels), tuple(map(str, range(max(labels) + 1))))
    return Loader(
        dataset,
        batch_size=batch_size,
        size=size,
        augment=Augment(),
        num_workers=num_workers,
        device="cpu",
        drop_last=False,
        **settings,
    )


def decode_only(
    paths: Sequence[str], labels: Sequence[int], num_workers: int, *, batch_size: int = BATCH_SIZE
) -> Iterable[Any]:
    """DALI's decoder alone, on bytes in memory. A batch's labels are its files, and its images None."""
    encoded = [np.fromfile(path, np.uint8) for path in paths]
    batches = [encoded[start : start + batch_size] for start in range(0, len(encoded), batch_size)]
    return _DecodeOnly(batches, batch_size, num_workers)


class _DecodeOnly:
    """Decodes all batches in each pass, two batches ahead, and yields None and the encoded batch."""

    def __init__(self, batches: list[list[np.ndarray]], batch_size: int, num_threads: int) -> None:
        self.batches = batches
        self.settings = {"batch_size": batch_size, "num_threads": num_threads}

    def __iter__(self) -> Iterator[Any]:
        stream = pipelines.DecodePipeline(self.batches[:2], **self.settings, device="cpu", device_id=None)
        for number, batch in enumerate(self.batches):
            stream.take()
            if number + 2 < len(self.batches):
                stream.put(self.batches[number + 2])
            yield None, batch


PEERS: dict[str, Peer] = {
    "fastpets": fastpets,
    "fastpets-cached": partial(fastpets, cache="host"),
    "torchvision": torchvision,
    "torchvision-pillow": partial(torchvision, pillow=True),
    "timm": timm,
    "fastai": fastai,
    "opencv": opencv,
    "dali-native": dali_native,
    "decode-only": decode_only,
}
# The optional library that a row needs.
LIBRARIES = {"timm": "timm", "fastai": "fastai", "opencv": "cv2"}

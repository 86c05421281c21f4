"""The loaders to compare with, each as its own documentation has it; all give float batches of 224 px pictures.

Every function takes the paths, their labels and the number of threads or worker processes, and returns an iterable
over one epoch's batches. `fastai` is imported where it is used: it is an extra.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastpets import pipelines
from fastpets.config import IMAGENET_MEAN, IMAGENET_STD, Augment
from fastpets.items import Items
from fastpets.loader import Loader

SIZE, BATCH_SIZE = 224, 64
Peer = Callable[[Sequence[str], Sequence[int], int], Iterable[Any]]


def fastpets(paths: Sequence[str], labels: Sequence[int], num_workers: int) -> Iterable[Any]:
    """This project's loader with its default augmentation, the chapter's."""
    items = Items(tuple(paths), np.array(labels), tuple(map(str, range(max(labels) + 1))))
    return Loader(
        items,
        batch_size=BATCH_SIZE,
        size=SIZE,
        augment=Augment(),
        num_workers=num_workers,
        device="cpu",
        drop_last=False,
    )


class _Pictures(torch.utils.data.Dataset):
    def __init__(self, paths: Sequence[str], labels: Sequence[int], transform: Callable) -> None:
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB")), self.labels[index]


def torchvision(paths: Sequence[str], labels: Sequence[int], num_workers: int) -> Iterable[Any]:
    """torch's DataLoader with torchvision's v2 transforms for the same augmentation, bilinear as here."""
    from torchvision.transforms import v2

    bilinear = v2.InterpolationMode.BILINEAR
    augment = Augment()
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(augment.min_scale, 1), ratio=(1, 1), interpolation=bilinear),
            v2.RandomHorizontalFlip(augment.flip_p),
            v2.RandomApply([v2.RandomRotation(augment.rotate_deg, interpolation=bilinear)], p=augment.affine_p),
            v2.RandomPerspective(augment.warp, p=augment.affine_p, interpolation=bilinear),
            v2.RandomApply([v2.ColorJitter(augment.lighting, augment.lighting)], p=augment.lighting_p),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return torch.utils.data.DataLoader(
        _Pictures(paths, labels, transform),
        BATCH_SIZE,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=True,
    )


def fastai(paths: Sequence[str], labels: Sequence[int], num_workers: int) -> Iterable[Any]:
    """The chapter's recipe: presizing to 460 px, batch transforms, normalisation."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Normalize,
        Resize,
        aug_transforms,
    )

    label_of = dict(zip(paths, labels, strict=True))
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda _: list(paths),
        get_y=lambda path: str(label_of[path]),
        splitter=IndexSplitter([0]),
        item_tfms=Resize(460),
        batch_tfms=[
            *aug_transforms(size=SIZE, min_scale=0.75),
            Normalize.from_stats(IMAGENET_MEAN, IMAGENET_STD),
        ],
    )
    return block.dataloaders(None, bs=BATCH_SIZE, num_workers=num_workers, device=torch.device("cpu")).train


def decode_only(paths: Sequence[str], labels: Sequence[int], num_workers: int) -> Iterable[Any]:
    """DALI's decoder on bytes in memory, with nothing before or after it: what no loader that decodes can pass."""
    encoded = [np.fromfile(path, np.uint8) for path in paths]
    batches = [{"encoded": encoded[start : start + BATCH_SIZE]} for start in range(0, len(encoded), BATCH_SIZE)]
    graph = partial(
        pipelines.decoded_pictures,
        device="cpu",
        batch_size=BATCH_SIZE,
        num_threads=num_workers,
        device_id=None,
    )
    return _DecodeOnly(graph, batches)


class _DecodeOnly:
    def __init__(self, graph: Callable, batches: list[pipelines.Inputs]) -> None:
        self.graph, self.batches = graph, batches

    def __iter__(self) -> Any:
        pipeline = self.graph(prefetch_queue_depth=2)
        pipeline.build()
        waiting = list(self.batches)
        for batch in waiting[:2]:
            pipeline.feed_input("encoded", batch["encoded"])
        pipeline.schedule_run()
        for number, batch in enumerate(waiting):
            pipeline.share_outputs()
            pipeline.release_outputs()
            if number + 2 < len(waiting):
                pipeline.feed_input("encoded", waiting[number + 2]["encoded"])
                pipeline.schedule_run()
            yield None, batch["encoded"]


PEERS: dict[str, Peer] = {
    "fastpets": fastpets,
    "torchvision": torchvision,
    "fastai": fastai,
    "decode-only": decode_only,
}

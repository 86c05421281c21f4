"""Other libraries' loaders, each set up as its own documentation has it when speed is wanted.

All decode JPEG files to normalised float32 batches, on as many threads or worker processes as they are told. Where a
library has the chapter's transforms, these are what it applies; a docstring says what differs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image

from bench.opencv_loader import OpenCVLoader
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD

SIZE, BATCH_SIZE = 224, 64


class _Images(torch.utils.data.Dataset):
    """Files opened by `read`, then transformed: what torch's DataLoader, and timm's around it, take."""

    def __init__(
        self, paths: Sequence[str], labels: Sequence[int], read: Callable[[str], Any], transform: Callable | None = None
    ) -> None:
        self.paths, self.labels, self.read, self.transform = paths, labels, read, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        assert self.transform is not None
        return self.transform(self.read(self.paths[index])), self.labels[index]


def _read_with_pillow(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _read_with_torchvision(path: str) -> torch.Tensor:
    from torchvision.io import ImageReadMode, decode_image

    return decode_image(path, mode=ImageReadMode.RGB)


def torchvision(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    size: int = SIZE,
    batch_size: int = BATCH_SIZE,
    pillow: bool = False,
    device: str | torch.device = "cpu",
) -> Iterable[Any]:
    """torch's DataLoader and torchvision's v2 transforms for the same augmentation, bilinear as here.

    With torchvision's own decoder, on 8-bit tensors, as its documentation recommends for speed; or on Pillow's
    images, as ImageFolder opens them. There is no zoom, and borders are black.
    """
    from torchvision.transforms import v2

    bilinear = v2.InterpolationMode.BILINEAR
    augment = Augment()
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(augment.min_scale, 1), ratio=(1, 1), interpolation=bilinear),
            v2.RandomHorizontalFlip(augment.p_flip),
            v2.RandomApply([v2.RandomRotation(augment.max_rotate, interpolation=bilinear)], p=augment.p_affine),
            v2.RandomPerspective(augment.max_warp, p=augment.p_affine, interpolation=bilinear),
            v2.RandomApply([v2.ColorJitter(augment.max_brightness, augment.max_contrast)], p=augment.p_lighting),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return torch.utils.data.DataLoader(
        _Images(paths, labels, _read_with_pillow if pillow else _read_with_torchvision, transform),
        batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=True,
        pin_memory=torch.device(device).type == "cuda",
    )


def timm(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    size: int = SIZE,
    batch_size: int = BATCH_SIZE,
) -> Iterable[Any]:
    """timm's loader for training with all of its defaults, but for the device: its prefetcher, and its augmentation.

    That is a random resized crop of 0.08 to 1 of the image, a flip, and brightness, contrast and saturation by up
    to 0.4: no rotation, no perspective. Its smaller crops make it less work than the others. Drops the last batch if
    it is not full.
    """
    from timm.data import create_loader

    return create_loader(
        _Images(paths, labels, _read_with_pillow),
        size,
        batch_size,
        is_training=True,
        num_workers=num_workers,
        device=torch.device("cpu"),
    )


def fastai(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    size: int = SIZE,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device = "cpu",
) -> Iterable[Any]:
    """The chapter's options: presizing to 460 px, batch transforms, normalisation. Drops the last batch if not full."""
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
        get_items=lambda _: [paths[0], *paths],  # the first is set apart, for validation
        get_y=lambda path: str(label_of[path]),
        splitter=IndexSplitter([0]),
        item_tfms=Resize(460),
        batch_tfms=[
            *aug_transforms(size=size, min_scale=0.75),
            Normalize.from_stats(IMAGENET_MEAN, IMAGENET_STD),
        ],
    )
    return block.dataloaders(
        None, bs=batch_size, num_workers=num_workers, persistent_workers=True, device=torch.device(device)
    ).train


def opencv(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    size: int = SIZE,
    batch_size: int = BATCH_SIZE,
) -> Iterable[Any]:
    """Threads around OpenCV, with the chapter's whole augmentation: see `OpenCVLoader`."""
    return OpenCVLoader(paths, labels, num_workers, size=size, batch_size=batch_size)


def dali_native(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    size: int = SIZE,
    batch_size: int = BATCH_SIZE,
) -> Iterable[Any]:
    """DALI's file reader, cropping decoder, affine warp and classification iterator, at their defaults.

    The warp turns and resizes the crop in one step: a quarter faster than DALI's filtered resize and a warp after it,
    a sixth faster than an unfiltered one (two threads of a Xeon). There is neither zoom nor perspective: `warp_affine`
    has none, and repeats the outermost pixels beyond the borders. Chroma upsampling is the decoder's default, which
    is coarser than in `decode-only`.
    """
    from nvidia.dali import pipeline_def
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator, LastBatchPolicy

    graph = pipeline_def(_dali_graph, batch_size=batch_size, num_threads=num_workers, device_id=None)
    return _Pairs(
        DALIClassificationIterator(
            [graph(list(paths), list(labels), size)],
            reader_name="files",
            auto_reset=True,
            last_batch_policy=LastBatchPolicy.PARTIAL,
        )
    )


def _dali_graph(paths: list[str], labels: list[int], size: int) -> tuple[Any, Any]:
    """DALI's nodes from files to images (3, S, S) float32 and labels."""
    from nvidia.dali import fn, types

    augment = Augment()
    encoded, label = fn.readers.file(files=paths, labels=labels, random_shuffle=True, pad_last_batch=True, name="files")
    crops = fn.decoders.image_random_crop(encoded, random_area=[augment.min_scale, 1], random_aspect_ratio=[1, 1])
    height_width = crops.shape(dtype=types.FLOAT)[:2]
    angle_deg = fn.random.uniform(range=[-augment.max_rotate, augment.max_rotate])
    turn = fn.transforms.rotation(angle=angle_deg, center=[size / 2, size / 2])
    resize = fn.transforms.scale(scale=fn.stack(height_width[1], height_width[0]) / size)
    images = fn.warp_affine(crops, matrix=fn.transforms.combine(turn, resize), size=[size, size])
    images = fn.brightness_contrast(
        images,
        brightness=fn.random.uniform(range=[1 - augment.max_brightness, 1 + augment.max_brightness]),
        contrast=fn.random.uniform(range=[1 - augment.max_contrast, 1 + augment.max_contrast]),
    )
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mirror=fn.random.coin_flip(probability=augment.p_flip),
        mean=[255 * value for value in IMAGENET_MEAN],
        std=[255 * value for value in IMAGENET_STD],
    )
    return images, label


class _Pairs:
    """Of DALI's iterator, which yields a list of dictionaries, the images and labels."""

    def __init__(self, iterator: Iterable[Any]) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for (outputs,) in self.iterator:
            yield outputs["data"], outputs["label"].squeeze(1)

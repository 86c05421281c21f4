"""Other libraries' loaders, each set up for speed as its own documentation recommends.

All make normalised float32 batches with `num_workers` threads or worker processes, from JPEG files or, where the
library keeps decoded images, from a temporary folder. Each applies the augmentation of fastai's chapter on pet breeds
(README.md), as far as the library has it; its docstring says what differs.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.opencv_loader import OpenCVLoader
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD

SIZE, BATCH_SIZE = 224, 64


class _Images(torch.utils.data.Dataset):
    """A dataset of files, opened by `read` and then transformed, for torch's DataLoader and timm's."""

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
    """torch's DataLoader, and torchvision's v2 transforms for the same augmentation, bilinear.

    Decodes with torchvision and transforms 8-bit tensors, as its documentation recommends for speed; with `pillow`,
    opens and transforms Pillow's images, as with ImageFolder. There is no zoom, and borders are black.
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
) -> Iterable[Any]:
    """timm's loader for training on the CPU, otherwise with its defaults, including prefetcher and augmentation.

    The augmentation is a random resized crop of 0.08 to 1 of the image's area, a flip, and brightness, contrast and
    saturation by up to 0.4, without rotation and perspective. It does less work than the others, as its crops are
    smaller. Drops an incomplete last batch.
    """
    from timm.data import create_loader

    return create_loader(
        _Images(paths, labels, _read_with_pillow),
        SIZE,
        BATCH_SIZE,
        is_training=True,
        num_workers=num_workers,
        device=torch.device("cpu"),
    )


def fastai(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device = "cpu",
) -> Iterable[Any]:
    """The chapter's options: presizing to 460 px, batch transforms, normalisation. Drops an incomplete last batch."""
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
            *aug_transforms(size=SIZE, min_scale=0.75),
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
) -> Iterable[Any]:
    """Threads around OpenCV, with the chapter's whole augmentation: see `OpenCVLoader`."""
    return OpenCVLoader(paths, labels, num_workers, size=SIZE, batch_size=BATCH_SIZE)


def dali_native(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
) -> Iterable[Any]:
    """DALI's file reader, cropping decoder, affine warp and classification iterator, at their defaults.

    The warp rotates and resizes the crop in one step. This is a quarter faster than DALI's filtered resize followed by
    a warp, and a sixth faster than an unfiltered resize (two threads of a Xeon). There is no zoom, and no perspective,
    since `warp_affine` has none; beyond the borders it repeats the outermost pixels. Chroma upsampling is the
    decoder's default, which is coarser than in `decode-only`.
    """
    from nvidia.dali import pipeline_def
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator, LastBatchPolicy

    graph = pipeline_def(_dali_graph, batch_size=BATCH_SIZE, num_threads=num_workers, device_id=None)
    return _Pairs(
        DALIClassificationIterator(
            [graph(list(paths), list(labels))],
            reader_name="files",
            auto_reset=True,
            last_batch_policy=LastBatchPolicy.PARTIAL,
        )
    )


def _dali_graph(paths: list[str], labels: list[int]) -> tuple[Any, Any]:
    """DALI's nodes from files to images (3, SIZE, SIZE) float32 and labels."""
    from nvidia.dali import fn, types

    augment = Augment()
    encoded, label = fn.readers.file(files=paths, labels=labels, random_shuffle=True, pad_last_batch=True, name="files")
    crops = fn.decoders.image_random_crop(encoded, random_area=[augment.min_scale, 1], random_aspect_ratio=[1, 1])
    height_width = crops.shape(dtype=types.FLOAT)[:2]
    angle_deg = fn.random.uniform(range=[-augment.max_rotate, augment.max_rotate])
    turn = fn.transforms.rotation(angle=angle_deg, center=[SIZE / 2, SIZE / 2])
    resize = fn.transforms.scale(scale=fn.stack(height_width[1], height_width[0]) / SIZE)
    images = fn.warp_affine(crops, matrix=fn.transforms.combine(turn, resize), size=[SIZE, SIZE])
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
    """Yields images and labels from DALI's iterator, which yields lists of one dictionary."""

    def __init__(self, iterator: Iterable[Any]) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for (outputs,) in self.iterator:
            yield outputs["data"], outputs["label"].squeeze(1)


def ultralytics_disk(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
) -> Iterable[Any]:
    """torch's DataLoader, and ultralytics' classification dataset and transforms, with its disk cache.

    The first epoch stores each decoded image as a `.npy` file, from which later epochs read it. The transforms are
    torchvision's on Pillow's images: crop, flip, and brightness and contrast of every image, without rotation, zoom and
    perspective. Mean and standard deviation are set to the others', since ultralytics trains on values of 0 to 1.
    """
    return _UltralyticsOnDisk(paths, labels, num_workers)


class _UltralyticsOnDisk:
    """Yields images and labels. A temporary folder has a copy of each file, and its decoded image beside it."""

    def __init__(self, paths: Sequence[str], labels: Sequence[int], num_workers: int) -> None:
        from ultralytics.cfg import get_cfg
        from ultralytics.data.augment import classify_augmentations
        from ultralytics.data.dataset import ClassificationDataset

        self.folder = tempfile.TemporaryDirectory(prefix="ultralytics-bench-")
        root = Path(self.folder.name, "images")
        for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
            copy = root / f"{label:03}" / f"{number}{Path(path).suffix}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)  # not a link: ultralytics repairs damaged files in place
        dataset = ClassificationDataset(str(root), get_cfg(overrides={"imgsz": SIZE, "cache": "disk"}))
        augment = Augment()
        dataset.torch_transforms = classify_augmentations(
            SIZE,
            IMAGENET_MEAN,
            IMAGENET_STD,
            scale=(augment.min_scale, 1),
            ratio=(1, 1),
            hflip=augment.p_flip,
            hsv_h=0,
            hsv_s=0,
            hsv_v=augment.max_brightness,  # of contrast, too
        )
        self.loader = torch.utils.data.DataLoader(
            dataset, BATCH_SIZE, shuffle=True, num_workers=num_workers, persistent_workers=True
        )

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in self.loader:
            yield batch["img"], batch["cls"]


def ffcv(
    paths: Sequence[str],
    labels: Sequence[int],
    num_workers: int,
    *,
    write_mode: str,
) -> Iterable[Any]:
    """FFCV's loader in random order, on a file written beforehand at the images' own sizes.

    With `write_mode` "raw" the file has pixels, with "jpg" JPEGs of quality 90, which FFCV encodes itself. It only
    crops and flips: FFCV has no rotation, zoom and perspective, and its brightness and contrast, which it applies in
    separate passes, would take another 1 ms of processor time per image.
    """
    return _FFCVEpochs(paths, labels, num_workers, write_mode)


class _FFCVEpochs:
    """Yields images and labels from a file in a temporary folder.

    FFCV sets the process's number of torch threads when it is imported and in each epoch. Other rows keep theirs.
    """

    def __init__(self, paths: Sequence[str], labels: Sequence[int], num_workers: int, write_mode: str) -> None:
        own_threads = torch.get_num_threads()
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.basics import IntDecoder
        from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
        from ffcv.writer import DatasetWriter

        self.folder = tempfile.TemporaryDirectory(prefix="ffcv-bench-")
        file = f"{self.folder.name}/images.beton"
        # The writer waits for ever if an image is larger than a page: this one is for 11 megapixels.
        fields = {"image": RGBImageField(write_mode), "label": IntField()}
        writer = DatasetWriter(file, fields, page_size=2**25, num_workers=num_workers)
        writer.from_indexed_dataset(_Images(paths, labels, _read_with_pillow, np.asarray))
        augment = Augment()
        images = [
            RandomResizedCropRGBImageDecoder((SIZE, SIZE), scale=(augment.min_scale, 1), ratio=(1, 1)),
            RandomHorizontalFlip(augment.p_flip),
            NormalizeImage(255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD), np.float32),
            ToTensor(),
            ToTorchImage(),
        ]
        self.loader = Loader(
            file,
            BATCH_SIZE,
            num_workers=num_workers,
            order=OrderOption.RANDOM,
            drop_last=False,
            pipelines={"image": images, "label": [IntDecoder(), ToTensor(), Squeeze(1)]},
        )
        torch.set_num_threads(own_threads)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        own_threads = torch.get_num_threads()
        try:
            yield from self.loader
        finally:
            torch.set_num_threads(own_threads)

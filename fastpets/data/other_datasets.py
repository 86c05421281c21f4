"""ImageDatasets from torchvision's and timm's data sets of files."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastpets.data.dataset import ImageDataset
from fastpets.data.hf_datasets import from_hf
from fastpets.data.labels import with_numbers
from fastpets.errors import InvalidArgumentError, warn

# Attributes in which torchvision's data sets keep their files and labels: as pairs, or as two lists.
PAIRS = ("samples", "_samples")
FILES_AND_LABELS = (("_images", "_labels"), ("_image_files", "_labels"))


def from_library(source: Any) -> ImageDataset:
    """An ImageDataset from the files and labels of a torchvision or timm data set; its `transform` is not used."""
    kind = type(source).__name__
    if getattr(source, "_target_types", ["category"]) != ["category"]:
        raise InvalidArgumentError(f"source: {kind} with target_types {source._target_types}, expected 'category' only")
    reader = getattr(source, "reader", None)
    dataset = _from_torchvision(source, kind) if reader is None else _from_timm(reader)
    if getattr(source, "transform", None) is not None:
        warn(f"the transform of this {kind} is not used; pass size, augment and mean to the Loader instead")
    if getattr(source, "target_transform", None) is not None:
        labels = list(map(source.target_transform, dataset.labels.tolist()))
        found = with_numbers(dataset.paths, labels, dataset.classes if reader is None else ())
        return replace(dataset, labels=found.labels, classes=found.classes)
    return dataset


def _from_torchvision(source: Any, kind: str) -> ImageDataset:
    pairs = next((getattr(source, name) for name in PAIRS if hasattr(source, name)), None)
    for files_name, labels_name in FILES_AND_LABELS:
        if pairs is None and hasattr(source, files_name) and hasattr(source, labels_name):
            pairs = list(zip(getattr(source, files_name), getattr(source, labels_name), strict=True))
    if pairs is None:
        raise InvalidArgumentError(
            f"source: {kind}, expected a folder, a CSV, an ImageDataset, a list of (path, label), a torchvision data "
            "set of files such as ImageFolder, or one of timm or Hugging Face; for others, list their files and labels"
        )
    # ImageNet's classes are tuples of synonyms.
    classes = [", ".join(name) if isinstance(name, tuple) else name for name in getattr(source, "classes", ())]
    return with_numbers([path for path, _ in pairs], [label for _, label in pairs], classes)


def _from_timm(reader: Any) -> ImageDataset:
    """The images of the reader in a data set that timm's `create_dataset` made, with the reader's labels."""
    kind = f"timm's {type(reader).__name__}"
    if hasattr(reader, "image_key"):
        if getattr(reader, "remap_class", False) or getattr(reader, "dense_target", False):
            raise InvalidArgumentError(f"source: {kind} with a class_map or several labels, expected one label")
        return from_hf(reader.dataset, image=reader.image_key, label=reader.label_key)
    samples: Sequence[Any] = getattr(reader, "samples", ())
    if not (hasattr(reader, "class_to_idx") and len(samples) and isinstance(samples[0][0], str)):
        raise InvalidArgumentError(
            f"source: {kind}, expected a folder or a Hugging Face data set that is not streamed; give the path of tar "
            "shards instead"
        )
    name_of = {label: name for name, label in reader.class_to_idx.items()}
    labels = [label for _, label in samples]
    classes = [name_of.get(label, str(label)) for label in range(max([*labels, *name_of]) + 1)]
    return with_numbers([path for path, _ in samples], labels, classes)

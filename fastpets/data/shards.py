"""ImageDatasets from WebDataset's tar shards."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from fastpets.data import storage
from fastpets.data.columns import columns_named
from fastpets.data.dataset import ImageDataset, labels_from_names
from fastpets.data.labels import ANOTHER_PATTERN, LABEL_PATTERN, labels_in_names, unlabelled
from fastpets.data.path_table import PathTable
from fastpets.data.tar_members import members
from fastpets.errors import FastpetsError, counted, warn
from fastpets.utils.validation import LabelFrom

LABEL_SUFFIXES = (".cls", ".json")  # of members that contain the label of an image, the preferred one first


def is_tar(source: Any) -> bool:
    """Whether a source is the path of tar shards."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(".tar")


def from_shards(shards: str, *, label_from: LabelFrom = "auto", label_pattern: str = LABEL_PATTERN) -> ImageDataset:
    """An ImageDataset from the images in WebDataset's tar files.

    The files of a sample have the same KEY: the path up to the first dot of the name. In a sample with KEY.jpg, others
    such as KEY.mask.png are no images. Otherwise KEY.ANYTHING.jpg is one, and KEY.ANYTHING.cls may have its label.

    Args:
        shards: a path that may contain * and braces, such as {000..099}.
        label_from: "none" for images without labels. Otherwise the label of KEY.jpg is the content of KEY.cls in the
            same shard, or in KEY.json a string, a whole number, or that of an object's `label`, `labels`, `class` or
            `target`. If the shards contain no label, all labels are found in the file names.
        label_pattern: as in `from_folder`.

    Raises FastpetsError if there is no image, one without a label, or a shard that is damaged; see `members`.
    """
    ignored: list[str] = []
    labels: list[str | None] = []

    def images() -> Iterator[str]:
        known: dict[str, str] = {}  # so that equal labels are one object
        for shard in storage.expand(shards):
            for path, label in _samples(shard, ignored, with_labels=label_from != "none"):
                labels.append(label if label is None else known.setdefault(label, label))
                yield path

    paths = PathTable(images())
    if not paths:
        raise FastpetsError(
            f"{shards}: {counted(len(ignored), 'file')} but no image in the shards, expected .jpg and the like"
        )
    if label_from == "none":
        return unlabelled(paths, ignored, shards)
    names: Iterable[str] = [label for label in labels if label is not None]
    is_labelled = bool(names)
    if not is_labelled:
        names = labels_in_names(paths, label_pattern, f"{ANOTHER_PATTERN}, or store the labels as KEY.cls")
    elif (num_missing := labels.count(None)) > 0:
        raise FastpetsError(
            f"{paths[labels.index(None)]}: no label in the shard ({num_missing} of {len(paths)} images have none); add "
            "KEY.cls or KEY.json beside the image"
        )
    return ImageDataset(paths, *labels_from_names(names), tuple(ignored), shards, "shard" if is_labelled else "name")


def _samples(shard: str, ignored: list[str], *, with_labels: bool) -> Iterator[tuple[str, str | None]]:
    """The path of each image in a shard, with its label if the shard contains one. Adds other files to `ignored`."""
    images: list[tuple[str, str, str]] = []  # path, key, and path without suffix
    labels: dict[str, dict[str, str | FastpetsError | None]] = {suffix: {} for suffix in LABEL_SUFFIXES}
    for path, content in members(shard, LABEL_SUFFIXES if with_labels else ()):
        member = storage.MEMBER.fullmatch(path)
        assert member is not None
        stem, suffix = os.path.splitext(member["name"])
        folder, slash, name = stem.rpartition("/")
        if storage.is_image(path):
            images.append((path, folder + slash + name.split(".")[0], stem))
        elif suffix.lower() not in LABEL_SUFFIXES:
            ignored.append(path)
        elif content is not None:
            try:
                labels[suffix.lower()][stem] = _label_in(path, content)
            except FastpetsError as error:
                labels[suffix.lower()][stem] = error
    counts = Counter(key for _, key, stem in images if stem == key)
    if repeated := [key for key, count in counts.items() if count > 1]:
        warn(f"{shard}: several images in {counted(len(repeated), 'sample')}, such as {repeated[0]}; each image counts")
    for path, key, stem in images:
        if stem != key and key in counts:
            ignored.append(path)
            continue
        found = (labels[suffix].get(part) for suffix in LABEL_SUFFIXES for part in (stem, key))
        label = next((label for label in found if label is not None), None)
        if isinstance(label, FastpetsError):
            raise label
        yield path, label


def _label_in(path: str, content: bytes) -> str | None:
    """The label in a member KEY.cls or KEY.json; None if it is a JSON object without a label."""
    try:
        label: Any = content.decode().strip()
        if path.lower().endswith(".json"):
            label = json.loads(label)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        expected = "expected a label as text in UTF-8" + " or JSON" * path.lower().endswith(".json")
        raise FastpetsError(f"{path}: begins with {content[:12]!r}, {expected} ({error})") from None
    if isinstance(label, dict):
        named = (label[name] for name in columns_named(list(label), "label"))
        label = next((value for value in named if value is not None), None)
        if label is None:
            return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, str | int) or not (name := str(label).strip()):
        raise FastpetsError(f"{path}: label {label!r}, expected a name or a whole number")
    return name

"""ImageDatasets from Hugging Face's data sets, whose images are read when they are needed.

An image that is a file has the path of that file. One whose bytes are in the data set has the path
`rows://DATASET/INDEX/NAME`, which fsspec reads here.
"""

import os
import posixpath
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from fastpets.data.columns import choose_column, columns_named
from fastpets.data.dataset import NO_LABEL, ImageDataset, labels_from_names
from fastpets.data.labels import unlabelled, with_numbers
from fastpets.data.path_table import PathTable, as_path_table
from fastpets.errors import InvalidArgumentError, warn

ROWS = 100  # read at a time to list them
UNSAFE = re.compile(r"[^\w.\- ]")  # in a name, since fsspec splits paths at ::


class Rows:
    """The bytes of the images in a data set's column.

    Args:
        column: the data set, in Arrow's format, with this column only.
        name: of the column.
        key: a hash of the contents.
    """

    def __init__(self, column: Any, name: str, key: str) -> None:
        self.column, self.name, self.key = column, name, key

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: an unpickled object can be read in the other process."""
        return readable, (self.column, self.name, self.key)

    def read(self, index: int) -> bytes:
        """The bytes of row `index`. Raises FileNotFoundError if it has none."""
        (value,) = self.column[index][self.name].to_pylist()
        content = value["bytes"] if isinstance(value, dict) else value
        if content is None:
            raise FileNotFoundError(f"row {index} has no image")
        return content


_readable: WeakValueDictionary[str, Rows] = WeakValueDictionary()  # by key; a Rows ends with the last data set of it


def readable(column: Any, name: str, key: str) -> Rows:
    """The Rows of this key, one for all data sets of this process, which RowsFileSystem can then read."""
    return _readable.setdefault(key, Rows(column, name, key))


class RowsFileSystem(fsspec.AbstractFileSystem):
    """Reads rows://DATASET/INDEX/NAME."""

    protocol = "rows"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        key, index, *_others = path.removeprefix("rows://").split("/")
        if key not in _readable:
            raise FileNotFoundError(f"the data set of {path} is not loaded in this process")
        return _readable[key].read(int(index))[start:end]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": None}  # DATASET changes with the contents


fsspec.register_implementation("rows", RowsFileSystem, clobber=True)


def is_hf(source: Any) -> bool:
    """Whether a source is a data set of Hugging Face's library `datasets`, or a dict of them."""
    if type(source) is dict:
        return bool(source) and all(map(is_hf, source.values()))
    library = sys.modules.get("datasets")
    names = ("Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")
    kinds = tuple(getattr(library, name) for name in names if hasattr(library, name))
    return isinstance(source, kinds)


def from_hf(
    dataset: Any, *, image: str | None = None, label: str | None = None, with_labels: bool = True
) -> ImageDataset:
    """An ImageDataset from a `datasets.Dataset`, in its order.

    Args:
        dataset: it has a column of images, or of their bytes. Its format and transform are not used.
        image, label: the names of the columns. Default: the only one of images, and the only one that is a ClassLabel
            or is named label, labels, class or target. Without such a column, images have no labels.
        with_labels: whether to use the labels, which `with_values` describes.

    Raises InvalidArgumentError if it is not clear which columns are meant, and for a data set that is streamed, or that
    has several parts.
    """
    kind = type(dataset).__name__
    if "Iterable" in kind:
        raise InvalidArgumentError(
            f"source: {kind}, expected a data set that is not streamed; leave out streaming=True"
        )
    if isinstance(dataset, dict):
        raise InvalidArgumentError(
            f"source: {kind} of {', '.join(dataset)}, expected one of them; fastpets.loaders takes all, for training "
            "and validation"
        )
    remove = "remove the others with remove_columns"
    image = image or choose_column("source", _image_columns(dataset.features), "image", remove)
    if image is None:
        found = ", ".join(dataset.column_names)
        raise InvalidArgumentError(f"source: columns {found}, expected one of images; use cast_column(NAME, Image())")
    if dataset.format["type"] == "custom":
        warn(f"the transform of this {kind} is not used; pass size, augment and mean to the Loader instead")
    rows = readable(dataset.select_columns([image]).with_format("arrow"), image, _key(dataset, image))
    images = replace(unlabelled(_paths(rows), root=f"rows://{rows.key}"), contents=rows)
    if not with_labels:
        return images
    label = label or choose_column("source", _label_columns(dataset.features), "label", remove)
    if label is None:
        return images
    values = dataset.select_columns([label]).with_format("arrow")[:][label].to_pylist()
    return with_values(images, values, getattr(dataset.features[label], "names", None) or ())


def from_hf_parts(datasets: Mapping[str, Any], *, with_labels: bool = True) -> tuple[ImageDataset, np.ndarray]:
    """The images of a dict of data sets together, and the name of the one that each is in, in lower case: (N,)."""
    parts = [from_hf(dataset, with_labels=with_labels) for dataset in datasets.values()]
    return joined(parts), np.repeat([name.lower() for name in datasets], [len(part) for part in parts])


def joined(datasets: Sequence[ImageDataset]) -> ImageDataset:
    """The images of several data sets, in this order. Labels are matched by the names of their classes."""
    classes = tuple(dict.fromkeys(name for dataset in datasets for name in dataset.classes))
    label_of = {name: label for label, name in enumerate(classes)}
    labels = [
        np.array([*(label_of[name] for name in dataset.classes), NO_LABEL])[dataset.labels] for dataset in datasets
    ]
    paths = PathTable(pa.concat_arrays([as_path_table(dataset.paths).array for dataset in datasets]))
    key = xxhash.xxh3_128_hexdigest("".join(dataset.root for dataset in datasets).encode())
    contents = [dataset.contents for dataset in datasets if dataset.contents is not None]
    return ImageDataset(paths, np.concatenate(labels), classes, root=f"rows://{key}", contents=contents or None)


def _image_columns(features: Any) -> list[str]:
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    return images or [name for name, feature in features.items() if getattr(feature, "dtype", "") == "binary"]


def _label_columns(features: Any) -> list[str]:
    classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    return classes or columns_named(list(features), "label")


def _key(dataset: Any, image: str) -> str:
    """A hash that changes with the contents of a data set: its fingerprint, and the files that it is in."""
    digest = xxhash.xxh3_128(f"{image} {len(dataset)} {dataset._fingerprint}".encode())
    for file in dataset.cache_files:
        status = os.stat(file["filename"])
        digest.update(f"{file['filename']} {status.st_size} {status.st_mtime_ns} ".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _paths(rows: Rows) -> list[str]:
    """The path of each image: of its file, if the data set has no bytes of it."""
    paths: list[str] = []
    for table in rows.column.iter(batch_size=ROWS):
        column = table[rows.name].combine_chunks()
        if pa.types.is_struct(column.type):
            has_bytes = pc.is_valid(pc.struct_field(column, "bytes")).to_pylist()
            names = pc.struct_field(column, "path").to_pylist()
        else:
            has_bytes, names = [True] * len(column), [None] * len(column)
        for is_row, name in zip(has_bytes, names, strict=True):
            if is_row or not name:
                shown = UNSAFE.sub("_", posixpath.basename(name or "")) or f"row-{len(paths)}"
                paths.append(f"rows://{rows.key}/{len(paths)}/{shown}")
            else:
                paths.append(name)
    return paths


def with_values(images: ImageDataset, values: Sequence[Any], classes: Sequence[str] = ()) -> ImageDataset:
    """The images with the values of a column as labels: names, or whole numbers.

    None, -1 and a blank name are no label. (In a table, where they cannot be told from a mistake, they are an error.)
    """
    is_missing = np.array([value is None or (isinstance(value, str) and not value.strip()) for value in values], bool)
    present = [value for value, missing in zip(values, is_missing, strict=True) if not missing]
    if present and all(isinstance(value, str) for value in present):
        labels = np.full(len(values), NO_LABEL)
        labels[~is_missing], names = labels_from_names(present)
        return replace(images, labels=labels, classes=names, label_from="given")
    numbers = [NO_LABEL if missing else value for value, missing in zip(values, is_missing, strict=True)]
    found = with_numbers(images.paths, numbers, classes)
    return replace(images, labels=found.labels, classes=found.classes, label_from="given")

"""ImageDatasets from Parquet files that contain images, as Hugging Face's repositories do.

Parquet compresses many images together, so that a single one cannot be read. Therefore each file is unpacked once, into
the folder `unpacked` of the user's cache folder, one group of rows after another. An image is then a range of bytes of
the unpacked file, with the path of a shard's member (`storage.py`).
"""

import contextlib
import fcntl
import json
import os
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from fastpets.data import storage
from fastpets.data.arrow_files import read_parquet, write_parquet
from fastpets.data.columns import choose_column, columns_named
from fastpets.data.dataset import ImageDataset
from fastpets.data.hf_datasets import joined, with_values
from fastpets.data.labels import unlabelled
from fastpets.errors import FastpetsError
from fastpets.utils.atomic import is_staging, write_atomically
from fastpets.utils.progress import track
from fastpets.utils.system import cache_dir

ROWS = 100  # read at a time
LABEL = "label "  # what the name of a column of labels begins with in an index
VERSION = 2  # of the index; increase it when a column or its meaning changes
SUFFIXES = (".images", ".parquet")  # of an unpacked file and its index

_in_use: dict[Path, int] = {}  # a locked descriptor of each folder of unpacked files that this process has used


def is_parquet(source: Any) -> bool:
    """Whether a source is the path of Parquet files."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(".parquet")


def from_parquet(files: str, *, with_labels: bool = True) -> tuple[ImageDataset, list[str]]:
    """The images in Parquet files, and the file that each of the N images is in.

    A file has one column of images, which are bytes or a struct with the field `bytes`, and optionally one of labels:
    a ClassLabel of Hugging Face, or a column named label, labels, class or target, with names or whole numbers.

    Args:
        files: a path, also with a scheme such as hf://, which may contain * and braces, such as {000..099}.
        with_labels: whether to use the labels.

    Raises FastpetsError for a file that has no such columns or is damaged, and if it cannot be unpacked.
    """
    datasets, file_of_each = list[ImageDataset](), list[str]()
    for file in storage.expand(files, "Parquet files"):
        dataset = _dataset(file, with_labels)
        datasets.append(dataset)
        file_of_each += [file] * len(dataset)
    return replace(joined(datasets), root=files), file_of_each


def _dataset(file: str, with_labels: bool) -> ImageDataset:
    unpacked, index = _unpacked(file)
    ends = np.cumsum(index["size"].to_numpy())
    paths = [
        f"{unpacked}::{end - size}+{size}::{name}"
        for end, size, name in zip(ends.tolist(), index["size"].to_pylist(), index["name"].to_pylist(), strict=True)
    ]
    images = unlabelled(paths, root=file)
    if not with_labels:
        return images
    classes_of = json.loads((index.schema.metadata or {})[b"classes"])  # of each column of labels
    label = choose_column(file, list(classes_of), "label", _remove(file))
    if label is None:
        return images
    return with_values(images, index[f"{LABEL}{label}"].to_pylist(), classes_of[label])


def _remove(file: str) -> str:
    """How to leave out columns."""
    return f"pass datasets.load_dataset('parquet', data_files={file!r}).remove_columns(NAMES) instead of the file"


def _unpacked(file: str) -> tuple[Path, pa.Table]:
    """The unpacked file, and the name, the size and each possible label of every image in it."""
    with ThreadPoolExecutor(1) as pool:
        stamp = next(storage.stamps([file], pool))
    try:
        folder = unpacked_folder()
        folder.mkdir(exist_ok=True)
        if folder not in _in_use:
            _in_use[folder] = _lock(folder, fcntl.LOCK_SH)
        key = xxhash.xxh3_64_hexdigest(f"{VERSION} {storage.absolute(file)} {stamp}".encode(errors="surrogateescape"))
        stem = posixpath.basename(file)[: -len(".parquet")]
        unpacked, index = (folder / f"{stem}-{key}{suffix}" for suffix in SUFFIXES)
        if not (unpacked.exists() and index.exists()):
            found: list[pa.Table] = []

            def write(staging: Path) -> None:
                with open(staging, "wb") as target, contextlib.closing(_open(file)) as source:
                    found.append(_unpack(file, source, target))

            write_atomically(unpacked, write)
            write_parquet(index, found[0])
        os.utime(unpacked)
        return unpacked, read_parquet(index)
    except FastpetsError:
        raise
    except pa.ArrowException as error:
        raise FastpetsError(f"{file}: {error}, expected a Parquet file") from None
    except OSError as error:
        raise FastpetsError(
            f"{file}: cannot be unpacked into the cache folder: {error}; set XDG_CACHE_HOME to a folder with more room"
        ) from None


def unpacked_folder() -> Path:
    """The folder of unpacked files, which may not exist."""
    return cache_dir() / "unpacked"


def unpacked_files() -> list[Path]:
    """The unpacked files, the one used least recently first; the time of a file says when it last was."""
    files = unpacked_folder().glob(f"*{SUFFIXES[0]}")
    return sorted((file for file in files if not is_staging(file)), key=lambda file: file.stat().st_mtime)


def remove_unpacked(file: Path) -> bool:
    """Removes an unpacked file, unless a process uses any in its folder. Returns whether it did."""
    try:
        os.close(_lock(file.parent, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    for suffix in SUFFIXES:
        file.with_suffix(suffix).unlink(missing_ok=True)
    return True


def _lock(folder: Path, operation: int) -> int:
    """A locked descriptor of a folder; on a file system without locks, one that is not. Raises BlockingIOError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        pass
    return descriptor


def _open(file: str) -> IO[bytes]:
    try:
        return fsspec.open(file, "rb").open()
    except Exception as error:  # each of fsspec's file systems raises its own types
        raise FastpetsError(f"{file}: {type(error).__name__}: {error}, expected a Parquet file") from None


def _unpack(file: str, source: IO[bytes], target: IO[bytes]) -> pa.Table:
    """Writes the bytes of all images. Returns a table with their names and sizes, and the columns that may be labels.

    An image that is missing has no bytes, which makes it a bad file.
    """
    parquet = pq.ParquetFile(source)
    schema, features = parquet.schema_arrow, _features(parquet.schema_arrow)
    images = [field.name for field in schema if _is_image(field.type)]
    image = choose_column(file, images, "image", _remove(file))
    if image is None:
        raise FastpetsError(f"{file}: columns {', '.join(schema.names)}, expected one of images or their bytes")
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = labels or columns_named(schema.names, "label")
    names, sizes, values = list[str](), list[int](), {label: list[Any]() for label in labels}
    batches = parquet.iter_batches(ROWS, columns=[image, *labels])
    num_batches = -(-parquet.metadata.num_rows // ROWS)
    for batch in track(batches, f"unpacking {posixpath.basename(file)}", num_batches):
        for content, name in _contents(batch.column(image)):
            target.write(content or b"")
            names.append(posixpath.basename(name or "") or f"row-{len(names)}")
            sizes.append(len(content or b""))
        for label in labels:
            values[label] += batch.column(label).to_pylist()
    columns: dict[str, Any] = {"name": names, "size": pa.array(sizes, pa.int64())}
    table = pa.table(columns | {f"{LABEL}{label}": values[label] for label in labels})
    classes_of = {label: features.get(label, {}).get("names", []) for label in labels}
    return table.replace_schema_metadata({"classes": json.dumps(classes_of)})


def _contents(column: pa.Array) -> Iterator[tuple[bytes | None, str | None]]:
    """The bytes of each image, and its name if it has one."""
    for value in column:
        value = value.as_py()
        yield (value["bytes"], value.get("path")) if isinstance(value, dict) else (value, None)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The features of Hugging Face's library in the metadata of a table; none if there are none."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return metadata.get("info", {}).get("features", {})

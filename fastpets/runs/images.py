"""The images of a run, as images.parquet in its folder lists them. A run resumes only with the same images."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastpets.data import storage
from fastpets.data.arrow_files import read_parquet, write_parquet
from fastpets.data.dataset import ImageDataset, labels_from_names
from fastpets.data.headers import MAX_STAMPED
from fastpets.data.path_table import PathTable
from fastpets.errors import FastpetsError, first_few, out_must_be_writable, reason
from fastpets.runs.files import IMAGES
from fastpets.utils.system import resolve_num_workers

PARTS = TRAINING, VALIDATION = "training", "validation"
FOLDER = b"folder"  # in the table's metadata: where the files are


def save_images(run_folder: Path, train: ImageDataset, valid: ImageDataset) -> None:
    """Writes images.parquet, a row for each image: see `_table`."""
    with out_must_be_writable(run_folder):
        write_parquet(run_folder / IMAGES, _table(train, valid))


def check_images(run_folder: Path, train: ImageDataset, valid: ImageDataset) -> None:
    """Raises FastpetsError, which names the differences, unless the images are those of images.parquet.

    They may be in another folder. A file of another size counts as another image.
    """
    file = run_folder / IMAGES
    try:
        before = read_parquet(file)
        now = _table(train, valid)
        differences = [] if before.equals(now) else _differences(before, now)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise FastpetsError(f"{file}: {reason(error)}, expected the list of the run's images") from None
    if differences:
        raise FastpetsError(
            f"{train.root}: not the images of the run that is resumed: {first_few(differences, '; ')}; restore them, "
            "or start a new run"
        )


def count_images(run_folder: Path) -> Counter[str]:
    """The number of images in each of PARTS, as images.parquet lists them; none if it cannot be read."""
    table = _read(run_folder)
    return Counter() if table is None else Counter(table["part"].to_pylist())


def read_images(run_folder: Path) -> tuple[ImageDataset, ImageDataset]:
    """The training and the validation images in images.parquet, where they were. Raises FastpetsError."""
    if (table := _read(run_folder)) is None:
        raise FastpetsError(f"{run_folder / IMAGES}: not readable, expected the list of the run's images")
    folder = os.fsdecode((table.schema.metadata or {}).get(FOLDER, b""))
    labels, classes = labels_from_names(os.fsdecode(name) for name in table["class"].to_pylist())
    paths = [folder + os.fsdecode(name) for name in table["file"].to_pylist()]
    dataset = ImageDataset(paths, labels, classes, root=folder)
    train, valid = (dataset.select(np.flatnonzero(pc.equal(table["part"], part).to_numpy())) for part in PARTS)
    return train, valid


def same_images(run_folder: Path, other_folder: Path, part: str | None = None) -> bool:
    """Whether two runs have the same images, of the same classes and sizes, in one of PARTS or in all of them together.

    The errors of two runs compare if they have the same images for validation.
    """
    own, other = (_read(folder) for folder in (run_folder, other_folder))
    if own is None or other is None:
        return False
    if part is not None:
        own, other = (table.filter(pc.equal(table["part"], part)) for table in (own, other))
    own, other = (table.drop_columns("part").sort_by("file") for table in (own, other))
    return own.equals(other)


def _read(run_folder: Path) -> pa.Table | None:
    """images.parquet of a run; None if it cannot be read."""
    try:
        return read_parquet(run_folder / IMAGES)
    except (OSError, pa.ArrowException):
        return None


def _table(train: ImageDataset, valid: ImageDataset) -> pa.Table:
    """The images in order: those for training, then those for validation.

    Its columns are file, the path relative to the folder that holds all of them; class; part, one of PARTS; and bytes,
    the file's size, or null with more than MAX_STAMPED images or for one that cannot be read. Names are binary, since
    they need not be UTF-8.
    """
    paths = PathTable(pa.concat_arrays([PathTable(dataset.paths).array for dataset in (train, valid)]))
    parts = pa.array(PARTS).take(pa.array([0] * len(train) + [1] * len(valid), pa.int8()))
    classes = pa.array(map(os.fsencode, train.classes), pa.binary())
    labels = pa.concat_arrays([pa.array(dataset.labels, pa.int32()) for dataset in (train, valid)])
    columns = {"file": paths.relative(), "class": classes.take(labels), "part": parts, "bytes": _sizes(paths)}
    folder = os.fsdecode(paths.folder())
    if not storage.is_remote(folder):
        folder = os.path.join(os.path.abspath(folder), "")
    return pa.table(columns).replace_schema_metadata({FOLDER: os.fsencode(folder)})


def _sizes(paths: PathTable) -> pa.Array:
    if len(paths) > MAX_STAMPED:
        return pa.nulls(len(paths), pa.int64())
    with ThreadPoolExecutor(resolve_num_workers(None)) as pool:
        sizes = [stamp.split()[0] for stamp in storage.stamps(paths, pool)]
    return pa.array([int(size) if size.isdigit() else None for size in sizes], pa.int64())


def _differences(before: pa.Table, now: pa.Table) -> list[str]:
    """A line for each difference: of classes if any are missing or new, else of files."""
    missing, new = (_only_in(one, other, "class") for one, other in ((before, now), (now, before)))
    if missing or new:
        if len(missing) == len(new) == 1:
            return [f"the class {missing[0]} is now {new[0]}"]
        return [f"the class {name} is missing" for name in missing] + [f"the class {name} is new" for name in new]
    missing, new = (_only_in(one, other, "file") for one, other in ((before, now), (now, before)))
    if missing or new:
        return [f"{name} is missing" for name in missing] + [f"{name} is new" for name in new]
    found = []
    rows_before, rows_now = ({row["file"]: row for row in table.to_pylist()} for table in (before, now))
    for name, row in rows_now.items():
        earlier = rows_before[name]
        for column, text in (("class", "of the class {}"), ("part", "for {}"), ("bytes", "{} bytes")):
            if row[column] != earlier[column]:
                was, is_now = (text.format(_shown(each[column])) for each in (earlier, row))
                found.append(f"{os.fsdecode(name)} is {is_now}, was {was}")
                break
    return found or ["their order"]


def _only_in(one: pa.Table, other: pa.Table, column: str) -> list[str]:
    """The values of a column that only the first table has, sorted."""
    values, others = (pc.unique(table[column]) for table in (one, other))
    return sorted(map(os.fsdecode, values.filter(pc.invert(pc.is_in(values, others))).to_pylist()))


def _shown(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else f"{value:,}" if isinstance(value, int) else str(value)

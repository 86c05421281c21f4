"""predictions.parquet: what a model predicts for the images that it was not trained on, to find wrong labels."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fastpets.data.arrow_files import read_parquet, write_parquet
from fastpets.data.dataset import NO_LABEL, ImageDataset
from fastpets.data.path_table import as_path_table
from fastpets.errors import FastpetsError, reason
from fastpets.runs.files import PREDICTIONS

CLASSES = b"classes"  # in the table's metadata: the names, as JSON, in the order of `probabilities`


def save_predictions(run_folder: Path, dataset: ImageDataset, probabilities: np.ndarray) -> None:
    """Writes predictions.parquet, a row for each image, given the probabilities (N, C) of the classes.

    Its columns are file, the path; class, the label's name or null; predicted, the name of the most probable class; and
    probabilities, a list of C numbers. Names are binary, since they need not be UTF-8.
    """
    num_images, num_classes = probabilities.shape
    names = pa.array(map(os.fsencode, dataset.classes), pa.binary())
    labels = pa.array(dataset.labels, pa.int64(), mask=dataset.labels < 0)
    predicted = pa.array(probabilities.argmax(1) if num_images else np.zeros(0, np.int64), pa.int64())
    numbers = pa.array(probabilities.astype(np.float32).ravel())
    columns = {
        "file": as_path_table(dataset.paths).array,
        "class": names.take(labels),
        "predicted": names.take(predicted),
        "probabilities": pa.FixedSizeListArray.from_arrays(numbers, num_classes),
    }
    table = pa.table(columns).replace_schema_metadata({CLASSES: json.dumps(dataset.classes)})
    write_parquet(run_folder / PREDICTIONS, table)


def join_predictions(run_folder: Path, fold_folders: Sequence[Path]) -> int:
    """Writes the rows of all folds' tables into one, with a column fold. Returns their number.

    Raises FastpetsError if a fold has none.
    """
    if missing := [folder.name for folder in fold_folders if not (folder / PREDICTIONS).exists()]:
        raise FastpetsError(f"{run_folder}: no {PREDICTIONS} in {', '.join(missing)}")
    tables = []
    for fold, folder in enumerate(fold_folders):
        table = read_parquet(folder / PREDICTIONS)
        tables.append(table.append_column("fold", pa.array([fold] * len(table), pa.int32())))
    table = pa.concat_tables(tables)
    write_parquet(run_folder / PREDICTIONS, table)
    return len(table)


def read_predictions(run_folder: Path) -> tuple[ImageDataset, np.ndarray]:
    """The images in predictions.parquet, and the probabilities (N, C) of their classes. Raises FastpetsError."""
    file = run_folder / PREDICTIONS
    try:
        table = read_parquet(file)
        classes = json.loads(table.schema.metadata[CLASSES])
        label_of = {os.fsencode(name): label for label, name in enumerate(classes)}
        labels = np.array([label_of.get(name, NO_LABEL) for name in table["class"].to_pylist()], np.int64)
        paths = [os.fsdecode(name) for name in table["file"].to_pylist()]
        flat = table["probabilities"].combine_chunks().flatten().to_numpy()
        probabilities = flat.astype(np.float64).reshape(len(table), len(classes))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise FastpetsError(f"{file}: {reason(error)}, expected the predictions of a cross-validation") from None
    return ImageDataset(paths, labels, classes), probabilities

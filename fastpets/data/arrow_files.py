"""Parquet files on a local disk. Arrow itself opens only paths in UTF-8."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fastpets.utils.atomic import write_atomically


def read_parquet(file: Path) -> pa.Table:
    """The table in a file. Raises OSError or pa.ArrowException."""
    return pq.read_table(io.BytesIO(file.read_bytes()))


def write_parquet(file: Path, table: pa.Table) -> None:
    """Writes a table atomically. Raises OSError."""

    def write(staging: Path) -> None:
        with open(staging, "wb") as stream:
            pq.write_table(table, stream, compression="zstd")

    write_atomically(file, write)

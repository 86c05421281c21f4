"""Reads tables of files and labels: CSV with commas, semicolons or tabs. Every row is read, or an error names it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastpets.data import csv_text, storage
from fastpets.data.columns import COLUMNS, column_key
from fastpets.data.dataset import PART_OF
from fastpets.data.path_table import PathTable
from fastpets.errors import FastpetsError, reason, warn

SUFFIXES = (".csv", ".tsv")
IS_VALID = {"true": "valid", "1": "valid", "false": "train", "0": "train"}  # the values of fastai's column
READ_BLOCK = 2**24  # bytes of a table that Arrow reads at a time; no row may be longer


class Column(NamedTuple):
    """A column of repeated strings.

    Attributes:
        codes: an index (N,) into `names` for each row.
        names: the distinct strings in the column.
        title: the column's name in the table.
    """

    codes: np.ndarray
    names: list[str]
    title: str


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a table, without blank ones.

    Attributes:
        path: of the table.
        paths: of the files.
        titles: the name in the table of each column of COLUMNS that it has.
        labels: the column of labels, if it was read; cells may be empty.
        splits: the column of splits with "train", "valid" and "test" in all their spellings; None if it is empty.
        blank: ascending numbers of the blank rows that were left out, counted from 0 with all others.
    """

    path: str
    paths: PathTable
    titles: dict[str, str]
    labels: Column | None
    splits: Column | None
    blank: np.ndarray

    def lines(self, ids: Sequence[int]) -> list[int]:
        """The lines of the table, counted from 1, on which rows start. Reads the table again."""
        numbers = 1 + np.delete(np.arange(len(self.paths) + len(self.blank)), self.blank)  # the header is number 0
        wanted = numbers[np.array(ids)].tolist()
        line_of = dict.fromkeys(wanted, 0)
        for number, (line, _) in enumerate(csv_text.rows(self.path)):
            if number in line_of:
                line_of[number] = line
        return [line_of[number] for number in wanted]

    def reject(self, row: int, problem: str) -> NoReturn:
        """Raises FastpetsError with the line of a row."""
        raise FastpetsError(f"{self.path}, line {self.lines([row])[0]}: {problem}")


def is_table(source: Any) -> bool:
    """Whether a source is the path of a table."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(SUFFIXES)


def read_table(path: str, folder: str, *, with_labels: bool) -> Table:
    """Reads a table in UTF-8 that has a header. A cell may be in quotes, which are doubled within it.

    Relative files lie below `folder`. Case, and spaces around the name of a column, make no difference. Empty lines,
    and rows whose cells are all empty, are skipped. Raises FastpetsError, with the line and the cell, for any other row
    without a file, a number of cells that is not the header's, an unknown split, a quote that is not closed at the end
    of its cell, a file with two labels, NUL, and what is not UTF-8, except in the names of files. Labels may be empty,
    but `with_labels` their column must be there.
    """
    needed = ("file", "label") if with_labels else ("file",)
    try:
        separator, header = csv_text.read_header(path, needed)
        titles = _titles(path, header, ("file", "label", "split") if with_labels else ("file", "split"))
        has_quotes, has_breaks = csv_text.check_quotes(path, separator)
        if has_breaks:
            csv_text.reject_swallowed_rows(path, separator, header, titles)
        places = {name: header.index(title) for name, title in titles.items()}
        columns = _read_columns(path, separator, places, has_quotes, has_breaks)
    except OSError as error:
        found = reason(error)
        raise FastpetsError(f"{path}: {found}, expected a CSV with the columns {' and '.join(needed)}") from None
    except pa.ArrowException as error:
        csv_text.reject_row(path, separator, header, titles, error)
    columns, blank = _without_blank_rows(path, separator, titles["file"], columns)
    labels, splits = (
        _as_column(columns[name], titles[name]) if name in columns else None for name in ("label", "split")
    )
    table = Table(path, PathTable(columns["file"]), titles, labels, splits, blank)
    if (row := pc.equal(columns["file"], b"").index(True).as_py()) >= 0:
        table.reject(row, f"{titles['file']} '', expected no empty cell; fill it in")
    table = replace(table, paths=PathTable(_paths(columns["file"], folder)), splits=_parts(table))
    del columns
    pa.default_memory_pool().release_unused()  # otherwise Arrow keeps twice the size of the table allocated
    if labels is not None:
        _check_repeated_files(table, labels)
    return table


def _read_columns(
    path: str, separator: str, places: dict[str, int], has_quotes: bool, has_breaks: bool
) -> dict[str, Any]:
    """The columns at the `places`, by their names. Raises OSError, and ArrowException for rows it cannot read."""
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

    fields = {name: f"f{place}" for name, place in places.items()}  # names in a header may repeat
    repeated = pa.dictionary(pa.int32(), pa.string())
    types = {field: pa.large_binary() if name == "file" else repeated for name, field in fields.items()}
    with csv_text.open_table(path) as file:
        read = read_csv(
            file,
            read_options=ReadOptions(
                autogenerate_column_names=True, block_size=READ_BLOCK
            ),  # the header is the first row
            parse_options=ParseOptions(
                delimiter=separator, quote_char='"' if has_quotes else False, newlines_in_values=has_breaks
            ),
            convert_options=ConvertOptions(include_columns=list(fields.values()), column_types=types),
        )
    return {name: read[field].unify_dictionaries().combine_chunks()[1:] for name, field in fields.items()}


def _titles(path: str, header: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The title of each of the columns `names` that a table has. Raises FastpetsError if there are two for one."""
    titles = {}
    for name in names:
        found = [title for title in header if column_key(title) in COLUMNS[name]]
        found = [title for title in found if column_key(title) == name] or found
        found = [title for title in found if title == name] or found
        if len(found) > 1:
            raise FastpetsError(f"{path}: columns {', '.join(found)}, expected one of them; rename the others")
        if found:
            titles[name] = found[0]
    return titles


def _without_blank_rows(
    path: str, separator: str, title: str, columns: dict[str, Any]
) -> tuple[dict[str, Any], np.ndarray]:
    """The columns without the rows whose cells are all empty, and these rows' numbers."""
    is_blank = np.logical_and.reduce(
        [pc.equal(column, b"" if name == "file" else "").to_numpy(False) for name, column in columns.items()]
    )
    if is_blank.all():
        raise FastpetsError(f"{path}: no rows, expected one for each image")
    if not is_blank.any():
        return columns, np.zeros(0, np.int64)
    for number, (line, row) in enumerate(csv_text.rows(path)):
        if number and is_blank[number - 1] and row.strip(f'"\r\n {separator}'):
            found = f"{title} '', expected no empty cell in {csv_text.quoted(row)}"
            raise FastpetsError(f"{path}, line {line}: {found}; fill it in")
    kept = pa.array(~is_blank)
    return {name: column.filter(kept) for name, column in columns.items()}, np.flatnonzero(is_blank)


def _as_column(array: pa.DictionaryArray, title: str) -> Column:
    indices = array.indices.to_numpy()
    used = np.flatnonzero(np.bincount(indices, minlength=len(array.dictionary)))
    code_of = np.zeros(len(array.dictionary), np.int32)
    code_of[used] = np.arange(len(used))
    return Column(code_of[indices], array.dictionary.take(pa.array(used)).to_pylist(), title)


def _parts(table: Table) -> Column | None:
    """The column of splits with the names of parts. Raises FastpetsError for a row without a known one."""
    if table.splits is None or not any(map(str.strip, table.splits.names)):
        return None
    codes, names, title = table.splits
    part_of = IS_VALID if column_key(title) == "is_valid" else PART_OF
    parts = [part_of.get(name.strip().casefold(), "") for name in names]
    if "" in parts:
        row = int(np.isin(codes, [code for code, part in enumerate(parts) if not part]).argmax())
        table.reject(row, f"{title} {names[codes[row]]!r}, expected one of {', '.join(part_of)}")
    return Column(codes, parts, title)


def _paths(files: pa.LargeBinaryArray, folder: str) -> pa.LargeBinaryArray:
    """The paths of files, of which relative ones lie below `folder`; each file has one path."""
    prefix = os.fsencode(os.path.join(folder, ""))
    is_absolute = pc.starts_with(files, b"/")
    if not _may_have_odd_paths(files):
        return pc.if_else(is_absolute, files, pc.binary_replace_slice(files, 0, 0, prefix))
    is_absolute = pc.or_(is_absolute, pc.match_substring(files, b"://"))
    paths = pc.if_else(is_absolute, files, pc.binary_replace_slice(files, 0, 0, prefix))
    is_odd = pc.match_substring_regex(files, r"//|\./")
    normalized = [os.fsencode(_normalized(os.fsdecode(file), folder)) for file in files.filter(is_odd).to_pylist()]
    return pc.replace_with_mask(paths, is_odd, pa.array(normalized, pa.large_binary()))


def _may_have_odd_paths(files: pa.LargeBinaryArray) -> bool:
    """Whether "//" or "./" is in one of the strings, or where two of them meet. Takes a fifth of Arrow's time."""
    content = np.frombuffer(files.buffers()[2], np.uint8)
    for start in range(0, len(content), 2**20):
        before, after = content[start : start + 2**20], content[start + 1 : start + 2**20 + 1]
        is_slash = after == ord("/")
        if (is_slash & ((before[: len(after)] == ord("/")) | (before[: len(after)] == ord(".")))).any():
            return True
    return False


def _normalized(file: str, folder: str) -> str:
    """The path of a file without "." and ".." in its name; as it is if it is remote, or if ".." follows a link."""
    if storage.is_remote(file):
        return file
    path, normal = os.path.join(folder, file), os.path.join(folder, os.path.normpath(file))
    return normal if ".." not in file or os.path.realpath(normal) == os.path.realpath(path) else path


def _check_repeated_files(table: Table, labels: Column) -> None:
    """Raises FastpetsError for a file with two labels; warns of files that two rows name with the same label."""
    codes, names, title = labels
    labelled = np.flatnonzero(codes != names.index("")) if "" in names else np.arange(len(codes))
    paths = table.paths.select(labelled) if len(labelled) < len(codes) else table.paths
    firsts, others = (labelled[ids] for ids in paths.repeats())
    if (differ := np.flatnonzero(codes[firsts] != codes[others])).size:
        first, other = int(firsts[differ[0]]), int(others[differ[0]])
        lines = table.lines((first, other))
        raise FastpetsError(
            f"{table.path}: {table.paths[first]} has {title} {names[codes[first]]!r} on line {lines[0]} and "
            f"{names[codes[other]]!r} on line {lines[1]}; expected one label for each file"
        )
    if len(others):
        lines = table.lines((int(firsts[0]), int(others[0])))
        warn(
            f"{table.path}: {len(others)} rows name the file of an earlier row, such as line {lines[1]} that of line "
            f"{lines[0]}; each row counts as an image"
        )

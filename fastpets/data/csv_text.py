"""Reads the text of tables, for what Arrow's reader does not tell: the header, quotes, and the line of a fault.

In all functions, `header` is the list of titles, `separator` the character between cells, and `titles` maps names in
COLUMNS to titles.
"""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import IO, NoReturn

import numpy as np

from fastpets.data import storage
from fastpets.data.columns import COLUMNS, column_key
from fastpets.errors import FastpetsError

SEPARATORS = (",", ";", "\t")
BLOCK = 2**23  # bytes of a table that are searched for quotes at a time
BOM = b"\xef\xbb\xbf"
MAX_QUOTED = 80  # characters of a cell or a row that a message quotes
UNCLOSED = "a quote is not closed at the end of its cell; close it, and double quotes within a cell"


def open_table(path: str) -> IO[bytes]:
    """Opens a table. Raises OSError, also for what is no file."""
    if storage.is_remote(path):
        return io.BytesIO(storage.read(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError("no regular file")  # opening a FIFO would wait
    return open(path, "rb")


def rows(path: str) -> Iterator[tuple[int, str]]:
    """The first line and the characters, decoded as Latin-1, of the header and of each row that is no empty line."""
    with open_table(path) as file:
        row, first, is_open = "", 1, False
        for number, line in enumerate(io.TextIOWrapper(file, "latin-1", newline=""), 1):
            if number == 1:
                line = line.removeprefix(BOM.decode("latin-1"))
            row, first = (row + line, first) if is_open else (line, number)
            is_open ^= line.count('"') % 2 == 1
            if not is_open and row.strip("\r\n"):
                yield first, row


def quoted(text: str) -> str:
    """The start of a row or a cell that is decoded as Latin-1, for messages."""
    return repr(text.strip("\r\n")[:MAX_QUOTED].encode("latin-1").decode(errors="backslashreplace"))


def split_row(row: str, separator: str) -> list[str]:
    """The cells of a row. Raises csv.Error for one of more than 131,072 characters."""
    return next(csv.reader([row], delimiter=separator))


def read_header(path: str, needed: Sequence[str]) -> tuple[str, list[str]]:
    """The separator and the cells of the header. Raises FastpetsError if the columns `needed` are not in it."""
    with open_table(path) as file:
        start = file.read(2**20).removeprefix(BOM)
    if b"\0" in start[:4]:
        raise FastpetsError(f"{path}: begins with {start[:4]!r}, expected UTF-8; save it as a CSV in UTF-8")
    line = next(iter(start.lstrip(b"\r\n").splitlines()), b"")
    headers: dict[str, list[str]]
    try:
        headers = {separator: split_row(line.decode(), separator) if line else [] for separator in SEPARATORS}
    except (UnicodeDecodeError, csv.Error) as error:
        raise FastpetsError(f"{path}: {error}, expected a CSV in UTF-8 with a header") from None
    for separator, header in headers.items():
        keys = set(map(column_key, header))
        if all(keys.intersection(COLUMNS[name]) for name in needed):
            return separator, header
    longest = max(headers.values(), key=len)
    raise FastpetsError(
        f"{path}: columns {', '.join(longest)[:MAX_QUOTED] or 'none'}, expected {' and '.join(needed)}, and optionally "
        "split"
    )


def check_quotes(path: str, separator: str) -> tuple[bool, bool]:
    """Whether a table contains quotes, and whether cells in quotes contain line breaks.

    Raises FastpetsError for NUL, and for a quote that neither begins nor ends a cell nor is doubled within one: where a
    quote is missing, a reader takes the rows up to the next quote for one cell.
    """
    ends = np.frombuffer(f'"\r\n{separator}'.encode(), np.uint8)  # what may be beside a quote
    num_quotes, opened, has_breaks = 0, 0, False
    with open_table(path) as file:
        start = len(BOM) if file.read(len(BOM)) == BOM else 0
        file.seek(start)
        before, block = b"\n", file.read(BLOCK)
        while block:
            after = file.read(BLOCK)
            if b"\0" in block:
                _reject_cell(path, separator, start + block.index(b"\0"), "contains NUL; remove it")
            if b'"' in block or num_quotes % 2:
                around = np.frombuffer(before + block + (after[:1] or b"\n"), np.uint8)
                inner = around[1:-1]
                quotes = np.flatnonzero(inner == ord('"'))
                closes = (num_quotes + np.arange(len(quotes))) % 2 == 1
                is_wrong = ~np.isin(around[np.where(closes, quotes + 2, quotes)], ends)  # the character beside it
                if is_wrong.any():
                    k = int(is_wrong.argmax())
                    if not closes[k]:
                        problem = "a quote within a cell; enclose the cell in quotes and double those within it"
                        _reject_cell(path, separator, start + int(quotes[k]), problem)
                    _reject_cell(path, separator, opened if k == 0 else start + int(quotes[k - 1]), UNCLOSED)
                breaks = np.flatnonzero((inner == ord("\n")) | (inner == ord("\r")))
                has_breaks |= bool(((num_quotes + np.searchsorted(quotes, breaks)) % 2).any())
                num_quotes += len(quotes)
                opened = start + int(quotes[-1]) if len(quotes) else opened
            before, start, block = block[-1:], start + len(block), after
    if num_quotes % 2:
        _reject_cell(path, separator, opened, UNCLOSED)
    return num_quotes > 0, has_breaks


def _reject_cell(path: str, separator: str, place: int, problem: str) -> NoReturn:
    """Raises FastpetsError with the line and the content of the cell around a byte of a table."""
    with open_table(path) as file:
        content = file.read(place + MAX_QUOTED)
    lines = content[: place + 1].splitlines()
    start = place + 1 - len(lines[-1].rpartition(separator.encode())[2])
    cell = re.split(rb"[\r\n]|" + separator.encode(), content[start:].removeprefix(BOM))[0]
    raise FastpetsError(f"{path}, line {len(lines)}: {cell.decode(errors='backslashreplace')!r}: {problem}")


def reject_swallowed_rows(path: str, separator: str, header: Sequence[str], titles: dict[str, str]) -> None:
    """Raises FastpetsError if a cell with line breaks seems to contain rows, as two cells with one quote each do.

    That is so if one of its lines is a whole row with a name of an image, or if a cell of a file, label or split
    contains the separator as well.
    """
    used = [header.index(title) for title in titles.values()]
    for line, row in rows(path):
        _, *others = re.split(r"[\r\n]+", row.strip("\r\n"))  # splitlines also splits at Latin-1's NEL
        if not others:
            continue
        try:
            cells = split_row(row, separator)
        except csv.Error:
            cells = []
        broken = [cells[i] for i in used if i < len(cells) and separator in cells[i] and re.search(r"[\r\n]", cells[i])]
        parts = [other.split(separator) for other in others]
        if broken or any(len(part) == len(header) and storage.is_image(part[used[0]]) for part in parts):
            raise FastpetsError(
                f"{path}, line {line}: {quoted((broken or others)[0])} in a cell looks like another row; {UNCLOSED}"
            )


def reject_row(path: str, separator: str, header: Sequence[str], titles: dict[str, str], error: Exception) -> NoReturn:
    """Raises FastpetsError with the line of the first row that cannot be read, for Arrow's error."""
    for line, row in rows(path):
        try:
            cells = split_row(row, separator)
        except csv.Error as problem:
            raise FastpetsError(f"{path}, line {line}: {problem}, expected shorter cells") from None
        if len(cells) != len(header):
            expected = f"expected {len(header)} like the header"
            raise FastpetsError(f"{path}, line {line}: {len(cells)} cells, {expected}: {quoted(row)}") from None
        for title in titles.values():
            cell = cells[header.index(title)].encode("latin-1")
            try:
                cell.decode()
            except UnicodeDecodeError:
                if title != titles["file"]:
                    raise FastpetsError(
                        f"{path}, line {line}: {title} {cell[:MAX_QUOTED]!r}, expected UTF-8; save it as a CSV in UTF-8"
                    ) from None
    raise FastpetsError(f"{path}: {error}, expected a CSV in UTF-8 with a header") from None

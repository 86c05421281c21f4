"""The names by which the columns of tables and of other data sets are known."""

import re
from collections.abc import Sequence

from fastpets.errors import InvalidArgumentError

# The names of each column, the preferred one first.
COLUMNS = {
    "file": ("file", "file_name", "filename", "image", "path"),
    "label": ("label", "labels", "class", "target"),
    "split": ("split", "is_valid"),
    "image": ("image", "img"),  # of the contents of files
}


def column_key(title: str) -> str:
    """The title of a column as it is compared with COLUMNS: without spaces around it, in lower case, with _ for -."""
    return re.sub(r"[\s-]+", "_", title.strip().casefold())


def columns_named(titles: Sequence[str], column: str) -> list[str]:
    """The titles that name a column of COLUMNS, the preferred name first."""
    return [title for name in COLUMNS[column] for title in titles if column_key(title) == name]


def choose_column(where: str, candidates: Sequence[str], column: str, remove: str) -> str | None:
    """The title of the image or label column among candidates: the only one, or the only one with a name in COLUMNS.

    None if there are no candidates. Raises InvalidArgumentError, which begins with `where` and ends with how to
    `remove` columns, if there are several.
    """
    named = columns_named(candidates, column)
    if len(candidates) > 1 and len(named) != 1:
        raise InvalidArgumentError(
            f"{where}: columns {', '.join(candidates)} of {column}s, expected one; {remove}"
            + ", or pass label_from='none'" * (column == "label")
        )
    return next(iter([*named, *candidates]), None)

"""Items: the pictures of a data set and their labels, from a folder, a table or tar shards."""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastpets import files
from fastpets.config import LABEL_PATTERN, LabelFrom
from fastpets.errors import FastpetsError
from fastpets.paths import Paths

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k")
) | {".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class Items:
    """Pictures in a fixed order; the position of one is its item id.

    `labels` (N,) int64 index into `classes`, the sorted names; -1 is an item without a label. `left_out` names the
    files of the folder that are no pictures by their suffix, and `root` is the folder or table that they came from.
    """

    paths: Paths
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    root: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.paths, Paths):
            object.__setattr__(self, "paths", Paths(self.paths))  # of any strings
        if len(self.paths) != len(self.labels):
            raise FastpetsError(f"items: {len(self.paths)} paths and {len(self.labels)} labels, expected as many")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, ids: np.ndarray) -> "Items":
        """The items `ids` alone, in that order, with the classes of the whole."""
        return replace(self, paths=self.paths.select(ids), labels=self.labels[ids])


def from_folder(
    folder: str | os.PathLike[str], *, label_from: LabelFrom = "name", label_pattern: str = LABEL_PATTERN
) -> Items:
    """The pictures below `folder`, sorted by path, labelled by the pattern on the name, by the parent folder, or not.

    Hidden files and folders are passed over. Raises FastpetsError if there is no picture, or one without a label.
    """
    folder = os.fspath(folder)
    paths, others = _pictures(files.find(folder))
    if not paths:
        raise FastpetsError(f"{folder}: {len(others)} files but no picture in it, expected .jpg, .png and the like")
    if label_from == "none":
        return numbered(paths, np.full(len(paths), NO_LABEL), (), folder, others)
    if label_from == "name":
        return with_classes(paths, _names_by_pattern(paths, label_pattern), folder, others)
    top = files.normalized(folder)
    flat = [path for path in paths if os.path.dirname(path) == top]
    if flat:
        raise FastpetsError(
            f"{flat[0]}: in no folder of its class ({len(flat)} of {len(paths)} pictures are not); "
            "move it into one, or take labels from the names (--label-from name)"
        )
    return with_classes(paths, (os.path.basename(os.path.dirname(path)) for path in paths), folder, others)


def from_shards(shards: str, *, label_pattern: str = LABEL_PATTERN) -> Items:
    """The pictures in tar files as WebDataset writes them; `shards` is a path with * or {000..099} where wanted.

    The label is what the file KEY.cls beside a picture KEY.jpg says, or else what the pattern finds in its name.
    Raises FastpetsError if there is no picture, or one without a label.
    """
    paths: list[str] = []
    others: list[str] = []
    labels: dict[str, str] = {}
    for shard in files.expand(shards):
        pictures, rest = _pictures(files.members(shard))
        paths += pictures
        for path in rest:
            if path.endswith(".cls"):
                labels[_key(path)] = files.read(path).decode().strip()
            else:
                others.append(path)
    if not paths:
        raise FastpetsError(f"{shards}: {len(others)} files but no picture in the shards, expected .jpg and the like")
    names = [labels[_key(path)] for path in paths if _key(path) in labels]
    if len(names) < len(paths):
        names = list(_names_by_pattern(Paths(paths), label_pattern))
    return with_classes(paths, names, shards, others)


def _key(path: str) -> str:
    """What the files of one sample in a shard share: the shard, and the name up to its first dot."""
    member = files.MEMBER.fullmatch(path)
    assert member is not None
    folder, _, name = member["name"].rpartition("/")
    return f"{member['shard']}::{folder}/{name.split('.')[0]}"


def from_csv(table: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> tuple[Items, list[str]]:
    """Items from the columns `file` and `label` of a CSV, in its order, and its `split` column ("" where it has none).

    Relative files are looked for below `root`, by default the folder of the table.
    """
    table = Path(table)
    root = os.fspath(root) if root is not None else os.fspath(table.parent)
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            columns = next(rows, [])
            if not {"file", "label"} <= set(columns):
                found = ", ".join(columns) or "none"
                raise FastpetsError(f"{table}: columns {found}, expected file, label and perhaps split")
            names: list[str] = []
            splits: list[str] = []
            paths = Paths(_table_paths(table, root, rows, columns, names, splits))
    except OSError as error:
        raise FastpetsError(f"{table}: {error.strerror}, expected a CSV with the columns file and label") from None
    except UnicodeDecodeError as error:
        raise FastpetsError(f"{table}: {error}, expected a CSV in UTF-8") from None
    if not paths:
        raise FastpetsError(f"{table}: no rows, expected one a picture")
    _check_numbers(table, names)
    return with_classes(paths, names, os.fspath(table)), splits


def _table_paths(
    table: Path, root: str, rows: Iterable[list[str]], columns: list[str], names: list[str], splits: list[str]
) -> Iterator[str]:
    """The path of each row, whose label and split are appended to `names` and `splits`."""
    shared: dict[str, str] = {}  # equal names as one string, for memory's sake
    wanted = [columns.index(name) if name in columns else len(columns) for name in ("file", "label", "split")]
    for number, row in enumerate(rows, start=2):
        row += [""] * (len(columns) + 1 - len(row))
        file, label, part = (row[column] for column in wanted)
        if not any(row):
            continue
        if not file or not label:
            raise FastpetsError(f"{table}, line {number}: {file!r} has no file or no label; fill it in")
        names.append(shared.setdefault(label, label))
        splits.append(shared.setdefault(part, part))
        yield file if files.is_remote(file) else os.path.join(root, file)


def _pictures(paths: Iterable[str]) -> tuple[Paths, list[str]]:
    """The pictures among files, by their suffixes, and the others."""
    others: list[str] = []

    def pictures() -> Iterator[str]:
        for path in paths:
            if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
                yield path
            else:
                others.append(path)

    return Paths(pictures()), others


def _names_by_pattern(paths: Sequence[str], pattern: str) -> Iterator[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise FastpetsError(f"label pattern {pattern!r}: {error}, expected a regular expression") from None
    if regex.groups < 1:
        raise FastpetsError(f"label pattern {pattern!r}: no group, expected one in parentheses, the label")
    for path in paths:
        match = regex.search(files.name_of(path))
        if match is None or match[1] is None:
            count = sum((m := regex.search(files.name_of(each))) is None or m[1] is None for each in paths)
            raise FastpetsError(
                f"{path}: the name does not match the label pattern {pattern!r} ({count} of "
                f"{len(paths)} pictures do not); give another --label-pattern, or --label-from folder"
            )
        yield match[1]


def with_classes(
    paths: Iterable[str | os.PathLike[str]], names: Iterable[str], root: str = "", left_out: Iterable[str] = ()
) -> Items:
    """Items whose classes are the sorted names of their labels; numbers, if all are, in the order of numbers."""
    found: dict[str, int] = {}
    codes = np.fromiter((found.setdefault(name, len(found)) for name in names), np.int64)
    classes = sorted(found, key=int) if all(map(_is_number, found)) else sorted(found)
    label_from_code = np.zeros(len(found), np.int64)
    label_from_code[[found[name] for name in classes]] = np.arange(len(found))
    return numbered(paths, label_from_code[codes], classes, root, left_out)


def numbered(
    paths: Iterable[str | os.PathLike[str]],
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    root: str = "",
    left_out: Iterable[str] = (),
) -> Items:
    """Items whose labels are numbers: from 0 on for the classes, whose names are by default the numbers, or -1."""
    found = np.asarray(labels)
    if len(found) and found.dtype.kind not in "iu":
        wrong = next(label for label in labels if not isinstance(label, int | np.integer))
        raise FastpetsError(f"label {wrong!r}, expected a name, or a whole number from 0, for all pictures alike")
    most = int(found.max(initial=NO_LABEL))
    names = tuple(map(str, classes)) or tuple(map(str, range(most + 1)))
    if int(found.min(initial=0)) < NO_LABEL or most >= len(names):
        wrong = most if most >= len(names) else int(found.min())
        raise FastpetsError(f"label {wrong}, expected 0 to {len(names) - 1}, or -1 for a picture without a label")
    packed = paths if isinstance(paths, Paths) else Paths(paths)
    root = root or (os.path.dirname(packed[0]) if packed else "")
    root = root if files.is_remote(root) else os.path.abspath(root)
    return Items(packed, found.astype(np.int64), names, tuple(left_out), root)


def _is_number(name: str) -> bool:
    return name.strip().lstrip("-").isdecimal()


def _check_numbers(table: Path, names: Sequence[str]) -> None:
    """Raises FastpetsError if most of the labels are numbers and some are not, as by a slip of the pen."""
    distinct = set(names)
    others = {name for name in distinct if not _is_number(name)}
    if others and len(others) < len(distinct) / 2:
        line = next(line for line, name in enumerate(names, start=2) if name in others)
        raise FastpetsError(
            f"{table}, line {line}: label {names[line - 2]!r}, expected a whole number like {len(distinct - others)} "
            f"of the {len(distinct)} different labels; mend it, or write all of them as names"
        )

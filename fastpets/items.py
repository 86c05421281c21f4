"""Items: the pictures of a data set and their labels, from a folder or a table, and their split in two."""

import csv
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastpets import philox
from fastpets.config import LABEL_PATTERN, LabelFrom
from fastpets.errors import FastpetsError
from fastpets.order import permutation

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k")
) | {".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
TRAIN_NAMES = ("train", "training")
VALID_NAMES = ("valid", "val", "validation", "test")
VALID_SHARE = 0.2
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class Items:
    """Pictures in a fixed order; the position of one is its item id.

    `labels` (N,) int64 index into `classes`, the sorted names; -1 is an item without a label. `left_out` names the
    files of the folder that are no pictures by their suffix, and `root` is the folder or table that they came from.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    root: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, ids: np.ndarray) -> "Items":
        """The items `ids` alone, in that order, with the classes of the whole."""
        return replace(self, paths=tuple(self.paths[i] for i in ids), labels=self.labels[ids])


def from_folder(
    folder: str | os.PathLike[str], *, label_from: LabelFrom = "name", label_pattern: str = LABEL_PATTERN
) -> Items:
    """The pictures below `folder`, sorted by path, labelled by the pattern on the name, by the parent folder, or not.

    Hidden files and folders are passed over. Raises FastpetsError if there is no picture, or one without a label.
    """
    pictures, others = _find_files(Path(folder))
    if label_from == "none":
        return numbered(pictures, np.full(len(pictures), NO_LABEL), (), root=str(folder), left_out=others)
    if label_from == "folder":
        names = [Path(path).parent.name for path in pictures]
        unlabelled = [path for path in pictures if os.path.dirname(path) == str(Path(folder))]
        if unlabelled:
            raise FastpetsError(
                f"{unlabelled[0]}: in no folder of its class ({len(unlabelled)} of {len(pictures)} pictures are not); "
                "move it into one, or take labels from the names (--label-from name)"
            )
    else:
        names = _names_by_pattern(pictures, label_pattern)
    return with_classes(pictures, names, root=str(folder), left_out=others)


def from_csv(table: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> tuple[Items, list[str]]:
    """Items from the columns `file` and `label` of a CSV, and its `split` column ("" where it has none).

    Relative files are looked for below `root`, by default the folder of the table.
    """
    table = Path(table)
    root = Path(root) if root is not None else table.parent
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except OSError as error:
        raise FastpetsError(f"{table}: {error.strerror}, expected a CSV with the columns file and label") from None
    if not {"file", "label"} <= set(columns):
        raise FastpetsError(f"{table}: columns {', '.join(columns) or 'none'}, expected file, label and perhaps split")
    for number, row in enumerate(rows, start=2):
        if not row["file"] or not row["label"]:
            raise FastpetsError(f"{table}, line {number}: {row['file']!r} has no file or no label; fill it in")
    if not rows:
        raise FastpetsError(f"{table}: no rows, expected one a picture")
    _check_numbers(table, [row["label"] for row in rows])
    rows.sort(key=lambda row: row["file"])
    items = with_classes([str(root / row["file"]) for row in rows], [row["label"] for row in rows], root=str(table))
    return items, [row.get("split") or "" for row in rows]


def split(items: Items, *, folder: str | os.PathLike[str] | None, seed: int = 42) -> tuple[Items, Items]:
    """Training and validation items: by folders named train and valid, val or test, else a random fifth by `seed`.

    Of several folders for validation the first of valid, val, validation, test counts, and the others are not used.
    """
    tops = _top_folders(items.paths, Path(folder)) if folder is not None else [""] * len(items)
    if set(tops) & set(TRAIN_NAMES) and set(tops) & set(VALID_NAMES):
        return split_by_names(items, tops)
    shuffled = permutation(len(items), purpose=philox.SPLIT, seed=seed)
    num_valid = int(VALID_SHARE * len(items))
    if num_valid == 0:
        raise FastpetsError(
            f"{len(items)} pictures, expected at least 5: a fifth of them validates; add some, or folders "
            "named train and valid"
        )
    train, valid = shuffled[num_valid:], shuffled[:num_valid]
    only_valid = np.flatnonzero(~np.isin(items.labels[valid], items.labels[train]))
    _, first = np.unique(items.labels[valid[only_valid]], return_index=True)
    moved = only_valid[first]  # one of each rare class that would be validated and never trained on
    train, valid = np.append(train, valid[moved]), np.delete(valid, moved)
    return items.select(np.sort(train)), items.select(np.sort(valid))


def split_by_names(items: Items, names: Sequence[str]) -> tuple[Items, Items]:
    """Training and validation items by the name of each one's part (a folder's, or a CSV's split column)."""
    lowered = np.array([name.strip().lower() for name in names])
    valid_name = next((name for name in VALID_NAMES if (lowered == name).any()), None)
    is_train = np.isin(lowered, TRAIN_NAMES)
    if valid_name is None or not is_train.any():
        found = ", ".join(sorted(set(map(str, lowered)))) or "nothing"
        raise FastpetsError(f"split: found {found}, expected train and one of {', '.join(VALID_NAMES)}")
    return items.select(np.flatnonzero(is_train)), items.select(np.flatnonzero(lowered == valid_name))


def _find_files(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted paths of the pictures below a folder, and of the other files."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise FastpetsError(f"{folder}: {found}, expected a folder of pictures")
    pictures: list[str] = []
    others: list[str] = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                is_picture = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
                (pictures if is_picture else others).append(os.path.join(parent, name))
    if not pictures:
        raise FastpetsError(f"{folder}: {len(others)} files but no picture in it, expected .jpg, .png and the like")
    return sorted(pictures), sorted(others)


def _names_by_pattern(paths: list[str], pattern: str) -> list[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise FastpetsError(f"label pattern {pattern!r}: {error}, expected a regular expression") from None
    if regex.groups < 1:
        raise FastpetsError(f"label pattern {pattern!r}: no group, expected one in parentheses, the label")
    matches = [regex.search(os.path.basename(path)) for path in paths]
    unmatched = [path for path, match in zip(paths, matches, strict=True) if match is None or match[1] is None]
    if unmatched:
        raise FastpetsError(
            f"{unmatched[0]}: the name does not match the label pattern {pattern!r} ({len(unmatched)} of "
            f"{len(paths)} pictures do not); give another --label-pattern, or --label-from folder"
        )
    return [match[1] for match in matches if match is not None]


def with_classes(
    paths: Iterable[str | os.PathLike[str]], names: Sequence[str], root: str = "", left_out: Iterable[str] = ()
) -> Items:
    """Items whose classes are the sorted names of their labels; numbers, if all are, in the order of numbers."""
    classes, labels = np.unique(np.array(names, dtype=object), return_inverse=True)
    if all(map(_is_number, classes)):
        in_order = sorted(range(len(classes)), key=lambda i: int(classes[i]))
        classes, labels = classes[in_order], np.argsort(in_order)[labels]
    return numbered(paths, labels, classes.tolist(), root, left_out)


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
    files = tuple(os.fspath(path) for path in paths)
    root = os.path.abspath(root or os.path.dirname(min(files, default="")))
    return Items(files, found.astype(np.int64), names, tuple(left_out), root)


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


def _top_folders(paths: Sequence[str], folder: Path) -> list[str]:
    """The first folder below `folder` on the way to each path, in small letters; "" for what lies in it directly."""
    parts = [os.path.relpath(path, folder).split(os.sep) for path in paths]
    return [part[0].lower() if len(part) > 1 else "" for part in parts]

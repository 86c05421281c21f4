"""A sequence of paths in one Arrow array, so that millions of paths take little memory and time."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash

CHUNK = 2**14  # paths that are converted to Python objects at a time


class PathTable(Sequence[str]):
    """An immutable sequence of paths, stored as an Arrow array of their bytes.

    Paths are bytes because file names need not be UTF-8. A million paths of 55 characters take 63 MB, 112 MB as a list
    of strings. Selecting 800,000 of them takes 0.02 s of CPU time, iterating over them 0.16 s (Xeon).
    """

    def __init__(self, paths: "Iterable[str | os.PathLike[str]] | pa.LargeBinaryArray" = ()) -> None:
        self.array = paths if isinstance(paths, pa.LargeBinaryArray) else _packed(paths)

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "PathTable": ...
    def __getitem__(self, index: int | slice) -> "str | PathTable":
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return os.fsdecode(self.array[range(len(self))[index]].as_py())

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chunks():
            yield from map(os.fsdecode, chunk)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathTable) and self.array.equals(other.array)

    def __hash__(self) -> int:
        return hash(self.hashes().tobytes())

    def select(self, ids: np.ndarray) -> "PathTable":
        """The paths at the indices `ids`, in that order."""
        return PathTable(self.array.take(pa.array(ids, pa.int64())))

    def absolute(self) -> "PathTable":
        """The paths, with the working folder before relative ones."""
        is_absolute = pyarrow.compute.match_substring_regex(self.array, rb"^/|^[^/]*://")
        if pyarrow.compute.all(is_absolute).as_py():
            return self
        prefix = os.fsencode(os.path.join(os.getcwd(), ""))
        prefixed = pyarrow.compute.binary_replace_slice(self.array, 0, 0, prefix)
        return PathTable(pyarrow.compute.if_else(is_absolute, self.array, prefixed))

    def hashes(self) -> np.ndarray:
        """A 64-bit hash of each path, (N,) uint64. A million take 0.10 s of CPU time."""
        hashes = (xxhash.xxh64_intdigest(path) for chunk in self._chunks() for path in chunk)
        return np.fromiter(hashes, np.uint64, len(self))

    def repeats(self) -> tuple[np.ndarray, np.ndarray]:
        """The first index of each path that occurs again, and that of each further occurrence, ascending: (R,), (R,).

        A million paths take 0.15 s of CPU time, and 0.01 s if they are sorted and differ.
        """
        none = np.zeros(0, np.int64)
        if pyarrow.compute.all(pyarrow.compute.less(self.array[:-1], self.array[1:])).as_py():
            return none, none
        hashes = self.hashes()
        in_order = np.sort(hashes)
        if not (in_order[1:] == in_order[:-1]).any():
            return none, none
        order = np.argsort(hashes, kind="stable")
        is_first = np.append(True, hashes[order[1:]] != hashes[order[:-1]])
        first = order[is_first][np.cumsum(is_first) - 1]
        firsts, others = first[~is_first], order[~is_first]
        is_same = pyarrow.compute.equal(self.array.take(pa.array(firsts)), self.array.take(pa.array(others)))
        firsts, others = firsts[is_same.to_numpy(False)], others[is_same.to_numpy(False)]
        by_index = np.argsort(others)
        return firsts[by_index], others[by_index]

    def folder(self) -> bytes:
        """The deepest folder that holds all files, with a slash at its end unless it is empty."""
        ends = pyarrow.compute.min_max(self.array).as_py()
        common = os.path.commonprefix([os.fsdecode(end or b"") for end in ends.values()])  # noqa: RUF071
        return os.fsencode(common[: common.rfind("/") + 1])

    def relative(self) -> pa.LargeBinaryArray:
        """The paths relative to `folder`."""
        return pyarrow.compute.binary_replace_slice(self.array, 0, len(self.folder()), b"")

    def fingerprint(self) -> str:
        """A 128-bit hash, in hexadecimal, of the `relative` paths."""
        digest = xxhash.xxh3_128()
        for chunk in PathTable(self.relative())._chunks():
            digest.update(b"".join(path + b"\0" for path in chunk))
        return digest.hexdigest()

    def _chunks(self) -> Iterator[list[bytes]]:
        for start in range(0, len(self), CHUNK):
            yield self.array[start : start + CHUNK].to_pylist()


def as_path_table(paths: Iterable[str | os.PathLike[str]]) -> PathTable:
    """The paths as a PathTable, unchanged if they are one."""
    return paths if isinstance(paths, PathTable) else PathTable(paths)


def _packed(paths: Iterable[str | os.PathLike[str]]) -> pa.LargeBinaryArray:
    encoded = map(os.fsencode, paths)
    chunks = [pa.array([], pa.large_binary())]
    while chunk := list(islice(encoded, CHUNK)):
        chunks.append(pa.array(chunk, pa.large_binary()))
    return pa.concat_arrays(chunks)

"""Compiles functions of numbers with numba.

Compiling takes seconds, so that the result is kept in the user's cache folder. numba notices changes of a function's
own file, but not of the functions that it calls. All of these are in SOURCES: a digest of them is part of the folder's
name.
"""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.extending import register_jitable

from fastpets.utils.system import cache_dir

F = TypeVar("F", bound=Callable)

SOURCES = ("utils/*.py", "augment/*.py", "data/jpeg.py")


def compilable(function: F) -> F:
    """Lets compiled functions call this one. Called from Python, it runs as it is written."""
    return register_jitable(error_model="numpy")(function)


def compiled(function: F) -> F:
    """Compiles a function at its first call, or loads what an earlier process has compiled.

    It runs without the GIL, and divides by zero as IEEE 754 says. With NUMBA_DISABLE_JIT=1 it runs as it is written.
    """
    options = {"nogil": True, "error_model": "numpy"}
    folder, users = _cache_folder(), numba.config.CACHE_DIR
    try:
        numba.config.CACHE_DIR = folder
        fast = numba.njit(function, cache=bool(folder), **options)
    finally:
        numba.config.CACHE_DIR = users

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal fast
        try:
            return fast(*arguments)
        except OSError:  # the cache cannot be read or written any more, as on a full disk
            fast = numba.njit(function, **options)
            return fast(*arguments)

    return call  # type: ignore[return-value]


@functools.cache
def _cache_folder() -> str:
    """The folder for what is compiled from the present sources; "" if it cannot be written."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for file in sorted(Path(__file__).parents[1].glob(pattern)):
            digest.update(file.read_bytes())
    try:
        folder = cache_dir() / "compiled" / digest.hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""

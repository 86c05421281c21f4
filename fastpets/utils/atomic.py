"""Atomic file writes."""

import contextlib
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def is_staging(file: Path) -> bool:
    """Whether a file is a temporary one of `write_atomically`, which remains if the process is killed."""
    return re.fullmatch(r"\.[0-9a-f]{32}\..+", file.name) is not None


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary path in the same folder, then renames that file to `path`.

    If `write` raises or the process is killed, an earlier file at `path` is unchanged. Several processes may write one
    path: the last to finish replaces the others' files.
    """
    staging = path.with_name(f".{uuid.uuid4().hex}.{path.name}")  # as is_staging expects
    try:
        staging.touch()
        mode = staging.stat().st_mode  # by the user's umask; some writers create files that only the owner can read
        write(staging)
        os.chmod(staging, mode)
        os.replace(staging, path)
    finally:
        with contextlib.suppress(OSError):
            staging.unlink()  # it exists only if writing failed

"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Has a file written beside its place and moves it in when it is whole; else what was there stays."""
    staging = path.with_name(f".{path.name}.part")
    try:
        staging.touch()
        mode = staging.stat().st_mode  # as this user's files are; some writers let nobody else read theirs
        write(staging)
        os.chmod(staging, mode)
        os.replace(staging, path)
    finally:
        with contextlib.suppress(OSError):
            staging.unlink()  # it is there still if writing was interrupted

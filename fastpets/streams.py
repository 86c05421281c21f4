"""Standard streams that are closed, full or no longer read."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class Output(io.FileIO):
    """A file that drops what cannot be written, so that a full disk or `| head -1` never ends a long computation.

    Attributes:
        error: the first one, unless it is that nobody reads any more.
    """

    error: OSError | None = None

    def write(self, content: Any) -> int:
        """Writes bytes, or drops them. Returns their number."""
        try:
            return super().write(content)
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.error = self.error or error
            return len(content)


def open_closed() -> None:
    """Opens standard streams that are closed on the null device.

    Otherwise the next file to be opened would take their place, and libraries' messages would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", errors="backslashreplace"))  # noqa: SIM115


@contextlib.contextmanager
def lasting(name: str) -> Iterator[Output | None]:
    """Replaces sys.stdout or sys.stderr, inside the context, by a stream that raises no error, and yields its file.

    Characters that its encoding lacks are escaped. A stream that was replaced before, as by a test, stays: None.
    """
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__"):
        yield None
        return
    file = Output(stream.fileno(), "w", closefd=False)
    is_immediate = stream.line_buffering or stream.write_through  # a terminal, or `python -u`
    text = io.TextIOWrapper(io.BufferedWriter(file), stream.encoding, "backslashreplace", line_buffering=is_immediate)
    setattr(sys, name, text)
    try:
        yield file
    finally:
        text.flush()
        setattr(sys, name, stream)

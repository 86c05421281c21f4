"""Errors and warnings for users of the package, and the form of their messages.

Each message is one line: which file or parameter, what was found, what was expected, and what to do.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path


class FastpetsError(Exception):
    """An operation that is not possible. Line breaks and other unprintable characters in the message are escaped."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InvalidArgumentError(FastpetsError, ValueError):
    """An argument with an invalid value. The message names the parameter."""


class BadFileError(FastpetsError):
    """Images that cannot be used.

    Attributes:
        problems: what is wrong with each file, by its path.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__(f"{describe_bad_files(problems)}; repair or delete them, or take on_bad_file='skip'")

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[dict[str, str]]]:
        return type(self), (self.problems,)


class BadFileWarning(UserWarning):
    """Images that cannot be used and are left out or replaced."""


def describe_bad_files(problems: dict[str, str], max_files: int = 5) -> str:
    """One line with the first `max_files` files and their problems, and the number of the others."""
    return one_line(first_few([f"{path}: {problem}" for path, problem in problems.items()], max_files, "; "))


def first_few(items: Sequence[str], max_items: int = 5, separator: str = ", ") -> str:
    """The first items and the number of the others, such as "a, b, and 3 more"."""
    rest = [f"and {len(items) - max_items} more"] if len(items) > max_items else []
    return separator.join([*items[:max_items], *rest])


def one_line(text: str) -> str:
    """The text with unprintable characters, such as a line break in a file name, escaped as in a Python string."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@contextlib.contextmanager
def out_must_be_writable(out: Path) -> Iterator[None]:
    """Turns an OSError of the block, which writes `out`, into an InvalidArgumentError about the parameter `out`."""
    try:
        yield
    except OSError as error:
        raise InvalidArgumentError(
            f"out: {out}: {error.strerror or error}, expected a place that this process may write to"
        ) from None

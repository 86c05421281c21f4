"""Errors and warnings for users. Each message is one line: what was found, what was expected, and what to do."""

import inspect
import warnings

MAX_SHOWN = 5  # bad files that a message names


class FastpetsError(Exception):
    """Base class of the errors that fastpets raises.

    Line breaks and other unprintable characters in the message are escaped, so that it is one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InvalidArgumentError(FastpetsError, ValueError):
    """An argument with an invalid value. The message names the parameter."""


class BadFileError(FastpetsError):
    """Images that cannot be read or decoded.

    Attributes:
        problems: what is wrong with each file, by its path.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__(f"{describe_bad_files(problems)}; repair or delete them, or pass on_bad_file='skip'")

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[dict[str, str]]]:
        return type(self), (self.problems,)


def describe_bad_files(problems: dict[str, str]) -> str:
    """One line with the first MAX_SHOWN files and their problems, and the number of the others."""
    shown = "; ".join(f"{path}: {problem}" for path, problem in list(problems.items())[:MAX_SHOWN])
    num_others = len(problems) - MAX_SHOWN
    return one_line(shown + (f"; and {num_others} more" if num_others > 0 else ""))


def warn(message: str) -> None:
    """Issues a UserWarning that names the first line of code outside this package."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "fastpets":
        frame, level = frame.f_back, level + 1
    warnings.warn(one_line(message), stacklevel=level)


def one_line(text: str) -> str:
    """Escapes unprintable characters in a text, such as a line break in a file name, as Python's repr does."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)

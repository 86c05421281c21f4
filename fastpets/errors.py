"""Errors and warnings for users. Each message is one line: what was found, what was expected, and what to do."""

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

MAX_SHOWN = 5  # files, or other items, that a message names
MAX_LENGTH = 4000  # characters of a message, which may contain the value that it is about


class FastpetsError(Exception):
    """Base class of the errors that fastpets raises.

    Line breaks and other unprintable characters in the message are escaped, so that it is one line. The middle of a
    message of more than MAX_LENGTH characters is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(without_middle(message)))


class InvalidArgumentError(FastpetsError, ValueError):
    """An argument with an invalid value. The message names the parameter."""


class BadFileError(FastpetsError):
    """Images that cannot be read or decoded.

    Attributes:
        problems: what is wrong with each file, by its path.
    """

    def __init__(
        self, problems: dict[str, str], remedy: str = "repair or delete them, or pass on_bad_file='skip'"
    ) -> None:
        self.problems, self.remedy = problems, remedy
        super().__init__(f"{describe_bad_files(problems)}; {remedy}")

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[dict[str, str], str]]:
        return type(self), (self.problems, self.remedy)


class BadFileWarning(UserWarning):
    """Images that cannot be used and are left out or replaced."""


def describe_bad_files(problems: dict[str, str]) -> str:
    """One line with the first files and their problems, and the number of the others."""
    return one_line(first_few([f"{path}: {problem}" for path, problem in problems.items()], "; "))


def first_few(items: Sequence[str], separator: str = ", ") -> str:
    """The first MAX_SHOWN items and the number of the others, such as "a, b, and 3 more"."""
    rest = [f"and {len(items) - MAX_SHOWN} more"] if len(items) > MAX_SHOWN else []
    return separator.join([*items[:MAX_SHOWN], *rest])


def counted(number: int, noun: str) -> str:
    """A number and its noun, such as "1 epoch", "2 classes" or "1,478 images"."""
    plural = noun if number == 1 else f"{noun}es" if noun.endswith(("s", "tch")) else f"{noun}s"
    return f"{number:,} {plural}"


def warn(message: str) -> None:
    """Issues a UserWarning that names the first line of code outside this package."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "fastpets":
        frame, level = frame.f_back, level + 1
    warnings.warn(one_line(without_middle(message)), stacklevel=level)


def without_middle(text: str) -> str:
    """A text of up to MAX_LENGTH characters, or the start and the end of a longer one."""
    if len(text) <= MAX_LENGTH:
        return text
    start, end = text[: MAX_LENGTH // 2], text[-MAX_LENGTH // 4 :]
    return f"{start} ... ({len(text) - len(start) - len(end):,} characters left out) ... {end}"


def reason(error: BaseException) -> object:
    """What an error says: of an OSError of the system, without its number and file."""
    return (isinstance(error, OSError) and error.strerror) or error


def one_line(text: str) -> str:
    """Escapes unprintable characters in a text, such as a line break in a file name, as Python's repr does."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@contextlib.contextmanager
def out_must_be_writable(out: Path) -> Iterator[None]:
    """Turns an OSError of the block, which writes `out`, into an InvalidArgumentError about the parameter `out`."""
    try:
        yield
    except OSError as error:
        raise InvalidArgumentError(
            f"out: {out}: {reason(error)}, expected a place that this process may write to"
        ) from None

"""Errors for users of the package. Each message is one line: what was found, what was expected, and what to do."""


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


def describe_bad_files(problems: dict[str, str], max_files: int = 5) -> str:
    """One line with the first `max_files` files and their problems, and the number of the others."""
    shown = "; ".join(f"{path}: {problem}" for path, problem in list(problems.items())[:max_files])
    num_others = len(problems) - max_files
    return one_line(shown + (f"; and {num_others} more" if num_others > 0 else ""))


def one_line(text: str) -> str:
    """The text with unprintable characters, such as a line break in a file name, escaped as in a Python string."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)

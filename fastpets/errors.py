"""The errors that a user of the package can meet, each with a message that says what to do."""


class FastpetsError(Exception):
    """What was asked cannot be done; the message says what was found, what was expected and what to do, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InvalidArgumentError(FastpetsError, ValueError):
    """An argument has a value that is not possible; the message names the parameter."""


class BadFileError(FastpetsError):
    """An image cannot be used. `problems` maps each path to what is wrong with it."""

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__(
            describe_bad_files(problems)
            + "; mend or delete them, or go on without: on_bad_file='skip', --on-bad-file skip"
        )

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[dict[str, str]]]:
        return type(self), (self.problems,)


def describe_bad_files(problems: dict[str, str], most: int = 5) -> str:
    """One line that names up to `most` of the files and counts the others."""
    shown = "; ".join(f"{path}: {problem}" for path, problem in list(problems.items())[:most])
    more = len(problems) - most
    return one_line(shown + (f"; and {more} more" if more > 0 else ""))


def one_line(text: str) -> str:
    """A text with what does not print, such as a newline in a file's name, as Python would write it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)

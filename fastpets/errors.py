"""The errors that a user of the package can meet, each with a message that says what to do."""


class FastpetsError(Exception):
    """What was asked cannot be done; the message says what was found, what was expected and what to do."""


class BadFileError(FastpetsError):
    """A picture cannot be used. `problems` maps each path to what is wrong with it."""

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__(describe_bad_files(problems) + "; mend or delete, or load with on_bad_file='skip'")

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[dict[str, str]]]:
        return type(self), (self.problems,)


def describe_bad_files(problems: dict[str, str], most: int = 5) -> str:
    """One line that names up to `most` of the files and counts the others."""
    shown = "; ".join(f"{path}: {problem}" for path, problem in list(problems.items())[:most])
    more = len(problems) - most
    return shown + (f"; and {more} more" if more > 0 else "")

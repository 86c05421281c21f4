"""What loading learns about files after their headers were read, and what is done about those that are bad."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from fastpets.data.headers import BAD, PILLOW, ImageHeaders
from fastpets.errors import BadFileError, BadFileWarning, FastpetsError, describe_bad_files
from fastpets.utils.validation import OnBadFile


class UnusableImageError(Exception):
    """An image cannot be used; the message says what was found."""


class ChangedImageError(UnusableImageError):
    """An image has another size than its header had when it was read."""

    def __init__(self, found: tuple[int, int], expected: tuple[int, int]) -> None:
        super().__init__(
            f"{found[1]} x {found[0]} px, expected {expected[1]} x {expected[0]}: the file changed after its header "
            "was read"
        )


class BadFiles:
    """The files found to be bad, the files that only Pillow decodes, and the policy for bad ones.

    What is learned about files during an epoch is recorded here. Headers change only by `read_again`.

    Attributes:
        problems: for each bad file that was met, its path and what is wrong.
    """

    def __init__(self, paths: Sequence[str], headers: ImageHeaders, on_bad_file: OnBadFile) -> None:
        self.problems: dict[str, str] = {}
        self.on_bad_file = on_bad_file
        self._paths, self._headers = paths, headers
        self._bad: set[int] = set()
        self._only_pillow: set[int] = set()

    @property
    def replaces(self) -> bool:
        """Whether bad files are replaced by other images, rather than left out."""
        return self.on_bad_file == "replace"

    def known(self, ids: np.ndarray) -> np.ndarray:
        """Which of the items (B,) are known to be bad: (B,) bool."""
        is_bad = self._headers.decoders[ids] == BAD
        return is_bad | np.isin(ids, list(self._bad)) if self._bad else is_bad

    def decoder(self, i: int) -> int:
        """DALI or PILLOW for item `i`: what its header says, unless DALI has rejected the file."""
        return PILLOW if i in self._only_pillow else int(self._headers.decoders[i])

    def rejected_by_dali(self, ids: np.ndarray) -> None:
        """Records items that DALI failed to decode: Pillow decodes them from now on."""
        self._only_pillow.update(ids.tolist())

    def replacement_for(self, i: int) -> int:
        """The next good item after `i`, cyclically. Raises FastpetsError if none is left."""
        num_items = len(self._paths)
        for other in ((i + step) % num_items for step in range(1, num_items + 1)):
            if self._headers.decoders[other] != BAD and other not in self._bad:
                return other
        raise FastpetsError(f"no image is left: all {num_items} files are bad")

    def report(self, problems: dict[int, str]) -> None:
        """Records bad items with their problems. Raises BadFileError, or warns, as `on_bad_file` says.

        Items that were recorded before, as by a batch that was made at the same time, are ignored.
        """
        by_path = {self._paths[i]: problem for i, problem in problems.items() if i not in self._bad}
        if not by_path:
            return
        self.problems.update(by_path)
        if self.on_bad_file == "raise":
            raise BadFileError(by_path)
        self._bad.update(problems)
        action = "replaced" if self.replaces else "left out"
        warnings.warn(f"{action}: {describe_bad_files(by_path)}", BadFileWarning, stacklevel=2)

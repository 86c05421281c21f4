"""What all commands share: their flags are read, a refusal is one line, and Ctrl-C is no accident."""

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from fastpets.errors import FastpetsError

Config = TypeVar("Config")


def run_command(
    name: str,
    kind: type[Config],
    do: Callable[[Config], int],
    arguments: Sequence[str] | None,
    stopped: str = "stopped",
    *,
    lists_bad_files: bool = False,
) -> int:
    """The exit status of `do`, called with the configuration that the arguments, by default the process's, make; 1 if
    it cannot be done, and 130 after Ctrl-C, when `stopped` is said. What lists bad files does not also warn of them."""
    try:
        config = tyro.cli(kind, args=arguments, prog=f"python -m fastpets.{name}")
        with warnings.catch_warnings():
            if lists_bad_files:
                warnings.simplefilter("ignore")
            return do(config)
    except FastpetsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return 130

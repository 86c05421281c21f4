"""`fastpets models`: lists the architectures that can be trained."""

from __future__ import annotations

import fnmatch
import sys
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from fastpets.errors import InvalidArgumentError, counted


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """List the architectures that --arch accepts: torchvision's and, if it is installed, timm's."""

    pattern: Annotated[Positional[str | None], arg(metavar="PATTERN")] = None
    """Part of the name, or a shell pattern, such as "convnext*" or "timm/convnext*". With a dot, it also finds the
    tags of timm's pretrained weights: "convnext_tiny."."""
    pretrained: bool = False
    """Only those with pretrained weights."""


def list_models(config: ModelsConfig) -> int:
    """Prints a line for each architecture."""
    from fastpets.models.architectures import architectures, did_you_mean

    pattern = config.pattern or ""
    found = {
        name: has_weights
        for name, has_weights in architectures().items()
        if matches(name, pattern) and ("." in pattern or "." not in name) and (has_weights or not config.pretrained)
    }
    if not found:
        raise InvalidArgumentError(f"pattern: no architecture matches {pattern!r}{did_you_mean(pattern)}")
    width = max(map(len, found))
    for name, has_weights in found.items():
        print(f"{name:<{width}}  pretrained" if has_weights else name)
    print(f"{counted(len(found), 'architecture')}, {sum(found.values())} with pretrained weights")
    return 0


def matches(name: str, pattern: str) -> bool:
    """Whether a shell pattern matches a whole name, with or without timm/ before it, or is a part of it."""
    return pattern in name or any(fnmatch.fnmatchcase(each, pattern) for each in (name, name.removeprefix("timm/")))


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["models", *sys.argv[1:]]))

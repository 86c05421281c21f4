"""`python -m fastpets.summary`: what a data set is, what becomes of one image, and what may spoil training."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from tyro.conf import Positional, arg

from fastpets.command import run_command
from fastpets.errors import one_line
from fastpets.runs.config import TrainConfig

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader

MOST_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class SummaryConfig(TrainConfig):
    """Say what was found in a data set, follow one image through every stage, and warn of what may spoil training.

    Takes the flags of fastpets.train.
    """

    data: Annotated[Positional[str | None], arg(metavar="DIR")] = None
    """Folder of images (s3:// too), tar shards, a CSV, or `sample`, a small drawn set. Default: Oxford-IIIT Pet."""
    image: str | None = None
    """The image to follow, by a part of its path. Default: the first to train on."""
    out: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """Also draw where the sample is cut out of that image, beside the sample."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0, 1 if a stage fails (one line says which and why), 130 after Ctrl-C."""
    return run_command("summary", SummaryConfig, summary, arguments, lists_bad_files=True)


def summary(config: SummaryConfig) -> int:
    """Prints all of it, stage by stage."""
    from fastpets.analysis import data_quality
    from fastpets.analysis.trace import find_item, stage, trace_sample
    from fastpets.runs import build

    with stage("files to items"):
        dataset = build.build_datasets(config)
    with stage("headers of the files"):
        train, valid = build.build_loaders(config, *dataset, device="cpu")
    describe(train, valid)
    trace_sample(train, find_item(config.image, train), config.label_pattern, config.out)
    found = list(data_quality.of(train, valid))
    print("\nWhat may spoil training" if found else "\nNothing was found that may spoil training")
    for line in found:
        print(f"  {one_line(line)}")
    return 0


def describe(train: Loader, valid: Loader) -> None:
    """What was found: images, sizes, formats, what was left out, classes and their counts."""
    from fastpets.data.headers import PILLOW

    both = (train, valid)
    num_usable = [int(loader.headers.usable.sum()) for loader in both]
    print(f"Found in {one_line(train.dataset.root)}")
    print(f"  {sum(num_usable)} images: {num_usable[0]} to train on, {num_usable[1]} to validate")
    suffixes = Counter(Path(path).suffix.lower() for loader in both for path in loader.dataset.paths)
    print(f"  by their names: {', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common())}")
    if by_pillow := sum(int((loader.headers.decoders == PILLOW).sum()) for loader in both):
        print(f"  {by_pillow} are decoded by Pillow, the others by DALI")
    for name in ("heights", "widths"):
        values = np.concatenate([getattr(loader.headers, name)[loader.headers.usable] for loader in both])
        print(f"  {name}: {values.min()} to {values.max()} px, median {np.median(values):.0f}")
    if left_out := train.dataset.left_out:
        print(f"  left out, no images by their names: {len(left_out)}, such as {one_line(left_out[0])}")
    for path, problem in list((train.bad_files | valid.bad_files).items())[:MOST_LISTED]:
        print(f"  left out: {one_line(path)}: {problem}")
    print(f"  {len(train.classes)} classes, images to train on and to validate:")
    counts = [
        np.bincount(loader.dataset.labels[loader.headers.usable], minlength=len(train.classes)) for loader in both
    ]
    order = np.argsort(-counts[0], kind="stable").tolist()
    width = max(len(one_line(name)) for name in train.classes)
    for place, label in enumerate(order):
        if place < MOST_LISTED or place >= len(order) - MOST_LISTED:
            print(f"    {one_line(train.classes[label]):<{width}} {counts[0][label]:>6} {counts[1][label]:>6}")
        elif place == MOST_LISTED:
            print(f"    ... {len(order) - 2 * MOST_LISTED} more")


if __name__ == "__main__":
    sys.exit(main())

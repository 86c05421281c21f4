"""The run folder and its files, which are written atomically."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpets.errors import InvalidArgumentError, out_must_be_writable, reason, warn
from fastpets.runs.files import (
    BAD_FILES,
    CONFIG,
    FOLDS,
    IMAGES,
    METRICS,
    RATE_CURVE,
    STEPS,
    TEST_METRICS,
    TTA_METRICS,
    read_bad_files,
    write_bad_files,
    write_rows,
)
from fastpets.training import distributed
from fastpets.training.history import EpochResult
from fastpets.training.lr_finder import RateCurve
from fastpets.training.recorder import Recorder
from fastpets.utils.atomic import is_staging, write_atomically

if TYPE_CHECKING:
    from fastpets.training.learner import Learner

DEFAULT_FOLDER = Path("runs")  # of run folders, in the working directory
BEFORE_TRAINING = {CONFIG, IMAGES, "tensorboard", "wandb"}  # what a run writes before it trains
MODEL = {"model.json", "model.safetensors"}  # and then before its first checkpoint


class RunFolder:
    """The folder of a run, with config.json, metrics.csv and steps.csv, and other files if the run has them.

    No other process can write the run until `close`. Raises InvalidArgumentError if another process writes it, if the
    folder cannot be made, or if it is not empty and the run is new.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        if not resume:
            check_new(path)
        with out_must_be_writable(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
        self.path = path

    def close(self) -> None:
        """Lets other processes write the run."""
        os.close(self._lock)

    def save_config(self, settings: dict[str, Any], resolved: dict[str, Any]) -> None:
        """Writes config.json: the settings as given, and the values of those that are automatic."""
        text = json.dumps({"settings": settings, "resolved": resolved}, indent=2, default=str) + "\n"
        with out_must_be_writable(self.path):
            write_atomically(self.path / CONFIG, lambda staging: staging.write_text(text, encoding="utf-8"))

    def save_history(self, history: Sequence[EpochResult]) -> None:
        """Writes metrics.csv, a row per epoch."""
        rows = [dataclasses.asdict(result) for result in history]
        for row in rows:
            row |= row.pop("metrics")
        write_rows(self.path / METRICS, rows)

    def save_steps(self, recorder: Recorder) -> None:
        """Writes steps.csv: the head's learning rate, the loss and the smoothed loss of each batch."""
        columns = {"lr": recorder.rates, "loss": recorder.losses, "smoothed_loss": recorder.smoothed}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        write_rows(self.path / STEPS, rows)

    def save_rate_curve(self, curve: RateCurve) -> None:
        """Writes lr_finder.csv and lr_finder.png."""
        write_rows(self.path / RATE_CURVE, curve.rows())
        write_atomically(self.path / "lr_finder.png", curve.plot)

    def save_test(self, values: Mapping[str, float]) -> None:
        """Writes test_metrics.csv: the loss and the metrics of the test images, in one row."""
        write_rows(self.path / TEST_METRICS, [values])

    def save_tta(self, augmented: int, error_rate: float) -> None:
        """Writes tta_metrics.csv: the number of augmented versions, and the error rate with them."""
        write_rows(self.path / TTA_METRICS, [{"augmented": augmented, "error_rate": error_rate}])

    def save_folds(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes folds.csv, a row per complete fold of a cross-validation."""
        write_rows(self.path / FOLDS, rows)

    def save_bad_files(self, problems: dict[str, str]) -> int:
        """Adds the images that cannot be used to bad_files.csv. Returns the number of images in it."""
        problems = read_bad_files(self.path / BAD_FILES) | problems
        if problems:
            write_bad_files(self.path / BAD_FILES, problems)
        return len(problems)


def new_folder(arch: str) -> Path:
    """Makes the folder runs/DATE_TIME_ARCH and returns its path, which ends in a number if another run has the name."""
    name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{arch.replace('/', '-')}"
    folder = DEFAULT_FOLDER.absolute()
    with out_must_be_writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = folder / (name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                break
    return path


def check_new(path: Path) -> None:
    """Raises InvalidArgumentError unless `path` is an empty folder, or one that can be made. Makes nothing.

    A folder with the files of a run that ended before its first checkpoint counts as empty.
    """
    with out_must_be_writable(path):
        if path.exists() and (not path.is_dir() or _holds_a_run(path)):
            raise InvalidArgumentError(f"out: {path} exists and is not empty, expected a new or an empty folder")
    check_writable(path)


def _holds_a_run(folder: Path) -> bool:
    """Whether a folder has other files than those of a run that ended before its first checkpoint."""
    names = {file.name for file in folder.iterdir() if not is_staging(file)}
    may_be_replaced = BEFORE_TRAINING | (MODEL if names >= {CONFIG, IMAGES} else set())
    return bool(names - may_be_replaced)


def check_writable(path: Path) -> None:
    """Raises InvalidArgumentError unless files can be made in `path`, or in the folder in which it would be made."""
    with out_must_be_writable(path):
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not above.is_dir():
            raise InvalidArgumentError(f"out: {path}: {above} is a file, expected a folder")
        tempfile.TemporaryFile(dir=above).close()  # permissions alone do not tell, for root or in /proc


@contextlib.contextmanager
def failure_is_a_warning(file: Path) -> Iterator[None]:
    """Turns any error of the block, which writes `file`, into a warning: a table or a plot is not worth an epoch."""
    try:
        yield
    except Exception as error:
        text = reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        warn(f"{file}: not written ({text}); training is not affected")


def _locked(folder: Path) -> int:
    """A descriptor that locks a folder until it is closed, or until this process ends.

    Raises InvalidArgumentError if another process has locked it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InvalidArgumentError(f"out: {folder}: another process is writing this run; wait until it ends") from None
    except OSError:
        pass  # a file system without locks
    return descriptor


def now() -> str:
    """The time at which a run starts, as config.json has it."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def resolved_by(learner: Learner) -> dict[str, Any]:
    """The values of automatic settings that a learner has chosen."""
    return {
        "device": learner.device,
        "num_workers": learner.train.num_workers,
        "amp_dtype": learner.train_step.amp_dtype,
        "num_processes": distributed.world_size(),
        "mean": learner.normalization[0],
        "std": learner.normalization[1],
    }

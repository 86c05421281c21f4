"""Experiment trackers: TensorBoard."""

import importlib.util
from pathlib import Path

from fastpets.errors import FastpetsError, one_line
from fastpets.training.history import EpochResult
from fastpets.training.recorder import Recorder


def check_tensorboard() -> None:
    """Raises FastpetsError if TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise FastpetsError("tensorboard: not installed; pip install tensorboard")


class TensorBoard:
    """Logs a run for TensorBoard, in the subfolder `tensorboard` of the run folder.

    A resumed run has logged its first `num_batches` batches before. Raises FastpetsError for a path that is not UTF-8.
    """

    def __init__(self, run_folder: Path, num_batches: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            self.writer = SummaryWriter(run_folder / "tensorboard")
        except UnicodeEncodeError:
            raise FastpetsError(f"tensorboard: {run_folder}: it needs a path in UTF-8; choose another out") from None
        self.num_batches = num_batches

    def log_epoch(self, result: EpochResult, recorder: Recorder) -> None:
        """Logs the loss and the learning rate of each of the epoch's batches, and the results of the epoch."""
        for batch in range(self.num_batches, result.batches):
            self.writer.add_scalar("train/loss", recorder.losses[batch], batch + 1)
            self.writer.add_scalar("train/lr", recorder.rates[batch], batch + 1)
        self.num_batches = result.batches
        scalars = {
            "train/smoothed_loss": result.train_loss,
            "train/images_per_sec": result.images_per_sec,
            "train/input_share": result.input_share,
            "valid/loss": result.valid_loss,
            "valid/error_rate": result.error_rate,
            **{f"valid/{one_line(name)}": value for name, value in result.metrics.items()},
        }
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, result.batches)
        self.writer.flush()

"""Experiment trackers: TensorBoard."""

from pathlib import Path

from fastpets.errors import FastpetsError
from fastpets.training.history import EpochResult
from fastpets.training.recorder import Recorder


class TensorBoard:
    """Logs a run for TensorBoard, in the subfolder `tensorboard` of its folder.

    `num_batches` are logged already, by the run that is resumed. Raises FastpetsError if TensorBoard is not installed.
    """

    def __init__(self, run: Path, num_batches: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise FastpetsError("tensorboard: not installed; pip install tensorboard") from None
        self.writer = SummaryWriter(run / "tensorboard")
        self.num_batches = num_batches

    def __call__(self, result: EpochResult, recorder: Recorder) -> None:
        """Logs the loss and the learning rate of the epoch's batches, and the epoch's results."""
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
            **{f"valid/{name}": value for name, value in result.metrics.items()},
        }
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, result.batches)
        self.writer.flush()

"""Losses, rates and metrics for TensorBoard."""

from pathlib import Path

from fastpets.errors import FastpetsError
from fastpets.training.history import EpochResult
from fastpets.training.recorder import Recorder


class TensorBoard:
    """Writes into the subfolder `tensorboard` of a run at the end of each epoch: each batch's loss and rate, and the
    epoch's numbers. Raises FastpetsError if tensorboard is not installed."""

    def __init__(self, run: Path, num_batches: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise FastpetsError("--tensorboard: not installed; pip install 'fastpets[tensorboard]'") from None
        self.writer = SummaryWriter(run / "tensorboard")
        self.num_batches = num_batches  # that were written before

    def __call__(self, result: EpochResult, recorder: Recorder) -> None:
        for batch in range(self.num_batches, result.batches):
            self.writer.add_scalar("train/loss", recorder.losses[batch], batch + 1)
            self.writer.add_scalar("train/lr", recorder.rates[batch], batch + 1)
        self.num_batches = result.batches
        numbers = {"train/smoothed_loss": result.train_loss, "valid/loss": result.valid_loss}
        numbers |= {"valid/error_rate": result.error_rate, "train/images_per_sec": result.images_per_sec}
        numbers |= {"train/input_share": result.input_share}
        numbers |= {f"valid/{name}": value for name, value in result.metrics.items()}
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, result.batches)
        self.writer.flush()

"""`python -m fastpets.export`: a trained model for other programs, with the normalisation inside: 8-bit pixels in."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from fastpets.command import run_command
from fastpets.errors import FastpetsError


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a run's model as one file that takes uint8 pixels (B, 3, H, W) and gives logits (B, classes).

    B is any number; H and W are what the model was trained for. The normalisation is inside.
    """

    run: Positional[Path]
    """The run's folder."""
    format: Literal["onnx", "torch"] = "onnx"
    """onnx, or torch's own (torch.export, to be loaded by torch.export.load)."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where it goes. Default: model.onnx or model.pt2 in the run's folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: 0 when written, 1 if it cannot be done (one line says why), 130 after Ctrl-C."""
    return run_command("export", ExportConfig, export, arguments)


def export(config: ExportConfig) -> int:
    """Writes the file, whole or not at all, and says where it is."""
    import torch

    from fastpets.runs.saved_model import load_run
    from fastpets.utils.atomic import write_atomically

    run = load_run(config.run, torch.device("cpu"))
    path = config.out or config.run / {"onnx": "model.onnx", "torch": "model.pt2"}[config.format]
    pixels = torch.zeros(2, 3, *run.seeing["size"], dtype=torch.uint8)  # of one image, B would be taken to be fixed
    module = from_pixels(run.model, run.seeing["mean"], run.seeing["std"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        exported = torch.export.export(module, (pixels,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
        if config.format == "torch":
            write_atomically(path, lambda staging: save_torch(exported, staging, run.classes))
        else:
            write_atomically(path, lambda staging: save_onnx(exported, staging, run.classes))
    height, width = run.seeing["size"]
    print(f"{path} takes uint8 pixels (B, 3, {height}, {width}) and gives logits (B, {len(run.classes)})")
    return 0


def from_pixels(model: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """A module from pixels (B, 3, H, W) uint8 to the model's logits."""
    import torch
    from torch import nn

    class FromPixels(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1))
            self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.model((pixels.float() - self.mean) / self.std)

    return FromPixels().eval()


def save_torch(exported: Any, path: Path, classes: Sequence[str]) -> None:
    """torch's format, with the classes as an extra file `classes.json`."""
    import torch

    with open(path, "wb") as file:
        torch.export.save(exported, file, extra_files={"classes.json": json.dumps(classes)})


def save_onnx(exported: Any, path: Path, classes: Sequence[str]) -> None:
    """ONNX, with the classes in its metadata. Raises FastpetsError if what writes it is not installed."""
    import torch

    try:
        program = torch.onnx.export(
            exported, dynamo=True, verbose=False, input_names=["pixels"], output_names=["logits"]
        )
    except ImportError as error:
        raise FastpetsError(f"--format onnx: {error.name} is not installed; pip install 'fastpets[onnx]'") from None
    assert program is not None
    program.model.metadata_props["classes"] = json.dumps(classes)
    program.save(path)


if __name__ == "__main__":
    sys.exit(main())

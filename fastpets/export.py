"""`fastpets export`: converts a trained model to ONNX or torch.export, with the normalisation inside."""

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

from fastpets.errors import FastpetsError, out_must_be_writable
from fastpets.runs.files import check_run


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Convert the model of a run to one file that maps pixels (B, 3, H, W) uint8 to logits (B, classes).

    B is variable; H and W are the size that the model was trained with. The normalisation is part of the model.
    """

    run: Positional[Path]
    """The run folder."""
    format: Literal["onnx", "torch"] = "onnx"
    """`onnx`, or `torch` for a file that torch.export.load reads."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """File to write. Default: model.onnx or model.pt2 in the run folder."""


def export(config: ExportConfig) -> int:
    """Writes the exported model and prints its path, its input and its output."""
    check_run("run", config.run)
    import torch

    from fastpets.runs.predictor import load
    from fastpets.utils.atomic import write_atomically

    saved = load(config.run, "cpu")
    height, width = saved.preprocessing.size
    path = config.out or config.run / {"onnx": "model.onnx", "torch": "model.pt2"}[config.format]
    pixels = torch.zeros(2, 3, height, width, dtype=torch.uint8)  # torch.export would treat B = 1 as a constant
    module = from_pixels(saved.model, saved.preprocessing.mean, saved.preprocessing.std)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        exported = torch.export.export(module, (pixels,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
        save = save_torch if config.format == "torch" else save_onnx
        with out_must_be_writable(path):
            write_atomically(path, lambda staging: save(exported, staging, saved.classes))
    print(f"{path}: pixels (B, 3, {height}, {width}) uint8 to logits (B, {len(saved.classes)})")
    return 0


def from_pixels(model: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """A module that maps pixels (B, 3, H, W) uint8 to logits (B, C): normalisation, then the model."""
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
    """Writes a torch.export file that contains the classes as the extra file `classes.json`."""
    import torch

    with open(path, "wb") as file:
        torch.export.save(exported, file, extra_files={"classes.json": json.dumps(classes)})


def save_onnx(exported: Any, path: Path, classes: Sequence[str]) -> None:
    """Writes an ONNX file, with the classes in its metadata. Raises FastpetsError if a library is missing."""
    import torch

    try:
        program = torch.onnx.export(
            exported, dynamo=True, verbose=False, input_names=["pixels"], output_names=["logits"]
        )
    except ImportError as error:
        raise FastpetsError(f"format: 'onnx' needs {error.name}; in a clone, pip install '.[onnx]'") from None
    assert program is not None
    program.model.metadata_props["classes"] = json.dumps(classes)
    program.save(path)


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["export", *sys.argv[1:]]))

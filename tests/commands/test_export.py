"""Exported models give the trained model's logits, also for images that Pillow prepares."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fastpets.cli import main
from fastpets.export import from_pixels
from fastpets.runs.build import build_datasets
from fastpets.runs.config import read_config
from fastpets.runs.predictor import Predictor, load


@pytest.fixture(scope="module")
def run(trained_run: Path) -> Predictor:
    return load(trained_run, "cpu")


def pixels_and_logits(trained_run: Path, run: Predictor) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """All validation images as pixels (N, 3, H, W) uint8, the logits (N, C) of the normalised images, and the paths."""
    _, valid = build_datasets(read_config(trained_run))
    (pixels, _), (images, _) = next(iter(run.loader(valid, output="uint8"))), next(iter(run.loader(valid)))
    with torch.inference_mode():
        return pixels.contiguous(), run.model(images), list(valid.paths)


def test_onnx_gives_the_models_logits_for_any_batch_size(trained_run: Path, run: Predictor, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert main(["export", str(trained_run), "--out", str(out)]) == 0
    session = onnxruntime.InferenceSession(out)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(run.classes)
    pixels, logits, _ = pixels_and_logits(trained_run, run)
    for count in (1, 5, 12):
        (found,) = session.run(None, {"pixels": pixels[:count].numpy()})
        assert found == pytest.approx(logits[:count].numpy(), abs=1e-4)


def test_torch_export_gives_the_models_logits(
    trained_run: Path, run: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "model.pt2"
    assert main(["export", str(trained_run), "--format", "torch", "--out", str(out)]) == 0
    assert f"{out}: pixels (B, 3, 32, 32) uint8 to logits (B, 3)" in capsys.readouterr().out
    extra = {"classes.json": ""}
    module = torch.export.load(out, extra_files=extra).module()
    assert json.loads(extra["classes.json"]) == list(run.classes)
    pixels, logits, _ = pixels_and_logits(trained_run, run)
    for count in (1, 12):
        assert (module(pixels[:count]) - logits[:count]).abs().max() < 1e-4


def test_images_prepared_by_pillow_as_in_the_readme_are_close(trained_run: Path, run: Predictor) -> None:
    pixels, logits, paths = pixels_and_logits(trained_run, run)
    height, width = run.preprocessing.size
    prepared = []
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        prepared.append(np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BOX)))
    others = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2)
    difference = (others.int() - pixels.int()).abs().float()
    assert difference.mean() < 4  # of 255: the loader interpolates between pixels, a box filter does not
    with torch.inference_mode():
        seen = [
            from_pixels(run.model, run.preprocessing.mean, run.preprocessing.std)(each) for each in (pixels, others)
        ]
    assert (seen[0] - logits).abs().max() < 1e-4
    assert (seen[0].softmax(1) - seen[1].softmax(1)).abs().max() < 0.1


def test_an_out_that_cannot_be_written_is_one_line(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "nowhere" / "model.pt2"
    assert main(["export", str(trained_run), "--format", "torch", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: --out: {out}: No such file or directory, expected a place")
    assert error.count("\n") == 1

"""All commands in turn on real images with real weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastpets.analysis.interpretation import Interpretation
from fastpets.cli import main
from tests.commands.test_serve import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def few(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of each of six breeds."""
    folder = tmp_path_factory.mktemp("few")
    for breed in ("Abyssinian", "beagle", "Birman", "pug", "samoyed", "Sphynx"):
        for path in sorted(pets.glob(f"{breed}_*.jpg"))[:8]:
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def run(few: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pets"
    flags = ["--arch", "timm/tf_efficientnet_lite0", "--weights", str(weights), "--size", "96", "--batch-size", "8"]
    phases = ["--freeze-epochs", "2", "--epochs", "1", "--lr", "5e-3", "--device", "cpu"]
    assert main(["train", "--data", str(few), *flags, *phases, "--out", str(out)]) == 0
    return out


def test_show_and_summary_before_training(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["show", str(few), "--out", str(tmp_path)]) == 0
    assert main(["summary", str(few), "--out", str(tmp_path / "sample.png"), "--image", "pug"]) == 0
    assert "4, 'pug', from the pattern" in capsys.readouterr().out
    for name in ("batch.png", "augmented.png", "sample.png"):
        with Image.open(tmp_path / name) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 100


def test_the_report_and_the_interpretation_agree(run: Path) -> None:
    found = Interpretation.from_run(run, device="cpu")
    page = (run / "report.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["numMistakes"] == len(found.mistakes())
    assert data["numImages"] == len(found.labels) == 9
    assert data["calibrationError"] == pytest.approx(found.calibration_error(), abs=1e-6)
    found.plot_confusion_matrix(run / "confusion.png")
    found.plot_top_losses(4, run / "top.png")


def test_predict_serve_and_export_agree(few: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    image = next(few.glob("samoyed_*.jpg"))
    capsys.readouterr()
    assert main(["predict", str(run), str(image), "--format", "json", "--top", "6", "--device", "cpu"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    server = Server(run, port=0, environment={})
    status, answer = server.ask("POST", "/predict", image.read_bytes())
    assert (status, server.stop()) == (200, (0, ""))
    served = {each["class"]: each["probability"] for each in answer["classes"]}
    assert served == pytest.approx({name: row["classes"][name] for name in served}, abs=1e-5)

    import torch

    from fastpets.runs.predictor import load

    assert main(["export", str(run), "--format", "torch", "--out", str(tmp_path / "model.pt2")]) == 0
    trained = load(run, "cpu")
    (batch,) = trained.loader([image], output="uint8")
    module = torch.export.load(tmp_path / "model.pt2").module()
    probabilities = module(batch.images.contiguous())[0].softmax(0)
    expected = torch.tensor([row["classes"][name] for name in trained.classes])
    assert (probabilities - expected).abs().max() < 1e-4

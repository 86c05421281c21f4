"""`fastpets train`: its flags, its output, its run folder, and one line for each error."""

import csv
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from fastpets.augment.preprocessing import Preprocessing
from fastpets.cli import main
from fastpets.errors import InvalidArgumentError
from fastpets.loading.sampler import batch_slices
from fastpets.models.classifier import create_model
from fastpets.runs.build import build_datasets, build_loaders
from fastpets.runs.config import TrainConfig, parse_size
from fastpets.runs.predictor import load
from fastpets.utils.progress import track
from tests.images import drawing

pytestmark = pytest.mark.slow

TINY = ["--arch", "shufflenet_v2_x0_5", "--weights", "none", "--size", "32", "--batch-size", "8", "--device", "cpu"]
FLAGS = (
    "recipe data label_from label_pattern labels split valid_share k_fold split_seed on_bad_file max_pixels size "
    "augment presize presize_method borders supersample seed num_workers sampler cache cache_dir cache_gb decode "
    "batch_size device arch weights head valid_size amp amp_dtype compile mix ema clip_norm weight_decay bn "
    "label_smoothing class_weights epochs freeze_epochs lr schedule initial_size accumulate folds metrics tta "
    "evaluate_test track out config resume"
)
FILES = (
    "checkpoint-{}.pt checkpoint-{}.pt config.json images.parquet metrics.csv model.json model.safetensors report.html "
    "steps.csv"
)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastpets.train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_train_config_has_exactly_these_flags() -> None:
    assert sorted(field.name for field in dataclasses.fields(TrainConfig)) == sorted(FLAGS.split())


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), ("224x320", (224, 320)), ("64X32", (64, 32))])
def test_a_size_is_a_side_or_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert parse_size("size", text) == size


@pytest.mark.parametrize("text", ["large", "1x2x3", "224x", "", "32:64"])
def test_other_sizes_are_rejected(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^size: .*expected a number of pixels, or HEIGHTxWIDTH"):
        TrainConfig(size=text)


def test_the_saved_model_has_the_preprocessing_of_the_run(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    seen = ["--size", "24x40", "--augment", "trivial-geometric", "--presize", 60, "--presize-method", "pad"]
    more = ["--borders", "zeros", "--supersample", 2, "--cache", "auto", "--max-pixels", 10_000, "--decode", "fast"]
    child = run("--data", make_folder(20), *TINY, *seen, *more, "--epochs", 2, "--out", out)
    assert child.returncode == 0, child.stderr
    saved = load(out, "cpu").preprocessing
    assert saved == Preprocessing(
        size=(24, 40), presize=60, presize_method="pad", borders="zeros", supersample=2, max_pixels=10_000
    )


def test_a_run_prints_a_line_per_epoch_and_writes_its_folder(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = make_folder(30), tmp_path / "run"
    (folder / "notes.txt").write_text("no image")
    child = run("--data", folder, *TINY, "--epochs", 2, "--out", out, "--num-workers", 1)
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    assert "24 training images, 6 validation images, 2 classes" in child.stdout
    assert "ignored 1 file without an image's suffix: notes.txt" in child.stdout
    heading = [line.split() for line in child.stdout.splitlines() if "train_loss" in line]
    assert heading == [["epoch", "train_loss", "valid_loss", "error_rate", "time", "images/s", "waiting"]]
    assert len(re.findall(r"^ +\d .* \d+%$", child.stdout, re.MULTILINE)) == 2
    assert child.stdout.splitlines()[-1] == f"model and metrics: {out}"

    assert sorted(path.name for path in out.iterdir()) == FILES.format("00000003", "00000006").split()
    config = json.loads((out / "config.json").read_text())
    assert (config["settings"]["epochs"], config["settings"]["seed"]) == (2, 0)
    assert (config["resolved"]["num_workers"], config["resolved"]["device"]) == (1, "cpu")
    with open(out / "metrics.csv") as file:
        rows = list(csv.reader(file))
    assert ",".join(rows[0]) == (
        "phase,epoch,batches,train_loss,valid_loss,error_rate,seconds,images_per_sec,input_share"
    )
    assert [row[:2] for row in rows[1:]] == [["one cycle", "0"], ["one cycle", "1"]]

    description = json.loads((out / "model.json").read_text())
    assert description["classes"] == ["kind0", "kind1"]
    assert description["arch"] == "shufflenet_v2_x0_5"
    assert Preprocessing.from_dict(description["preprocessing"]) == Preprocessing(size=(32, 32))
    model = create_model(description["arch"], len(description["classes"]), "none")
    model.load_state_dict(load_file(out / "model.safetensors"))
    assert model.eval()(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_pretrained_weights_train_in_two_phases(pets: Path, weights: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pets.glob("*_1*.jpg"))[:40]:
        (few / path.name).symlink_to(path)
    flags = ["--arch", "timm/tf_efficientnet_lite0", "--weights", weights, "--size", 64, "--batch-size", 16]
    out = tmp_path / "run"
    child = run("--data", few, *flags, "--freeze-epochs", 1, "--epochs", 1, "--device", "cpu", "--out", out)
    assert child.returncode == 0, child.stderr
    with open(out / "metrics.csv") as file:
        assert [row["phase"] for row in csv.DictReader(file)] == ["frozen", "unfrozen"]
    saved = load(out, "cpu").preprocessing
    assert (saved.mean, saved.std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: nothing there, expected a folder of images"),
        (["--size", "0"], "--size: 0, expected a value from 1 to 16384"),
        (["--lr", "nan"], "--lr: 'nan', expected a number from 1e-12 to 1000, a range as 1e-6:1e-4, or auto"),
        (["--schedule", "frozen 3"], "--schedule: 'frozen 3', expected fitted, or frozen or unfrozen with a number of"),
        (["--ema", "1.5"], "--ema: 1.5, expected a value from 0 to 1"),
        (["--resume", "nowhere"], "/nowhere: nothing there, expected a run folder or a checkpoint"),
        (["--device", "gpu"], "--device: 'gpu', expected auto, cpu, cuda or cuda:N"),
        (
            ["--amp", "--amp-dtype", "float16", "--device", "cpu"],
            "--amp-dtype: 'float16', but a CPU trains in bfloat16",
        ),
        (["--labels", "gone.csv"], "gone.csv: No such file"),
        (["--data", "sample", "--label-pattern", "(_)"], "classes: _; expected at least two"),
        (["--tta", "2", "--augment", "none"], "--tta: 2, but --augment none gives no augmented versions"),
        (["--seed", "-1"], "--seed: -1, expected a value from 0 to 9223372036854775807"),
    ],
)
def test_an_error_is_one_line_and_status_1(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bad_image_stops_the_run_before_training_and_can_be_skipped(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = make_folder(30), tmp_path / "run"
    (folder / "kind0_0.jpg").write_bytes(b"")
    arguments = ["--data", str(folder), *TINY, "--epochs", "1", "--out", str(out)]
    assert main(["train", *arguments]) == 1
    assert "kind0_0.jpg: 0 bytes, expected an image" in capsys.readouterr().err
    assert not out.exists()
    child = run(*arguments, "--on-bad-file", "skip")
    assert child.returncode == 0
    assert child.stderr.startswith("warning: left out")
    (row,) = csv.DictReader((out / "bad_files.csv").read_text().splitlines())
    assert row == {"file": str(folder / "kind0_0.jpg"), "problem": "0 bytes, expected an image"}
    assert "kind0_0.jpg: 0 bytes, expected an image" in (out / "report.html").read_text()


def test_images_that_do_not_decode_are_in_the_report_of_the_first_run(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder, out = make_folder(30), tmp_path / "run"
    for path in folder.glob("kind0_1*.jpg"):  # of the training and of the validation images
        os.truncate(path, path.stat().st_size // 2)  # only decoding finds this
    assert run("--data", folder, *TINY, "--epochs", 1, "--on-bad-file", "skip", "--out", out).returncode == 0
    rows = list(csv.DictReader((out / "bad_files.csv").read_text().splitlines()))
    assert {Path(row["file"]) for row in rows} == set(folder.glob("kind0_1*.jpg"))
    page = (out / "report.html").read_text()
    assert all(row["file"] in page for row in rows)


@pytest.mark.parametrize("lr", ["1e-3", "auto"])
def test_images_of_which_none_decodes_are_one_line(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture, lr: str
) -> None:
    folder = make_folder(20)
    for path in folder.iterdir():
        os.truncate(path, path.stat().st_size // 2)
    flags = ["--data", str(folder), *TINY, "--epochs", "1", "--on-bad-file", "skip", "--lr", lr]
    assert main(["train", *flags, "--out", str(tmp_path / "run")]) == 1
    *warned, error = capsys.readouterr().err.splitlines()
    assert all(line.startswith("warning: left out: ") for line in warned)
    assert error.startswith("error: no training image could be used in a whole epoch (")


def test_an_existing_run_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "model.json").write_text("{}")  # without the files of a run that ended early
    # The data set does not exist: the run folder is checked before it is read.
    assert main(["train", "--data", str(tmp_path / "nowhere"), *TINY, "--out", str(out)]) == 1
    assert f"--out: {out} exists and is not empty, expected a new or an empty folder" in capsys.readouterr().err
    assert (out / "model.json").read_text() == "{}"


def test_amp_trains(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    arguments = ["--data", str(make_folder(20)), *TINY, "--epochs", "1", "--amp", "--amp-dtype", "bfloat16"]
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]["amp_dtype"] == "torch.bfloat16"


def test_all_training_options_work_together(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        "--schedule",
        "frozen 1 auto, unfrozen 2 1e-4:1e-3",
        "--initial-size",
        "16",
        "--metrics",
        "top5",
        "recall",
    ]
    arguments += ["--label-smoothing", "0.1", "--mix", "both", "--ema", "0.9", "--accumulate", "2", "--clip-norm", "1"]
    arguments += ["--class-weights", "--bn", "eval", "--tta", "2", "--track", "tensorboard", "--weight-decay", "0.05"]
    child = run("--data", make_folder(60), *TINY, *arguments, "--out", out)
    assert child.returncode == 0, child.stderr
    assert "error rate with test-time augmentation (2): 0." in child.stdout
    found = re.search(
        r"^lowest recall: kind[01] [\d.]+ of (\d+), kind[01] [\d.]+ of (\d+)$", child.stdout, re.MULTILINE
    )
    assert found is not None
    assert sum(map(int, found.groups())) == 12  # validation images
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [(row["phase"], row["epoch"]) for row in rows] == [("frozen", "0"), ("unfrozen", "0"), ("unfrozen", "1")]
    assert {"top5", "recall/kind0", "recall/kind1"} <= set(rows[0])
    steps = list(csv.DictReader((out / "steps.csv").read_text().splitlines()))
    assert len(steps) == int(rows[-1]["batches"]) == 3 * 6
    (augmented,) = csv.DictReader((out / "tta_metrics.csv").read_text().splitlines())
    assert augmented["augmented"] == "2"
    assert f"augmentation (2): {float(augmented['error_rate']):.6f}" in child.stdout
    assert max(len(line) for line in child.stdout.splitlines() if re.match(r"epoch  | +\d ", line)) <= 80
    assert (out / "lr_finder.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "lr_finder.csv").read_text().splitlines()) > 10

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard")).Reload()
    logged = [event.value for event in events.Scalars("train/loss")]
    assert logged == pytest.approx([float(step["loss"]) for step in steps], rel=1e-6)
    assert len(events.Scalars("valid/error_rate")) == 3


def test_lowest_recalls_are_of_classes_with_validation_images(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(24):
        part, kind = "train" if number < 18 else "valid", number % 3
        path = tmp_path / part / f"kind{kind}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if part == "train" or kind < 2:
            drawing(40, 50, seed=number).save(path)
    (tmp_path / "valid" / "kind2").rmdir()
    flags = ["--data", str(tmp_path), *TINY, "--epochs", "2", "--metrics", "recall", "--out", str(tmp_path / "run")]
    assert main(["train", *flags]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("lowest recall: "))
    assert re.fullmatch(r"lowest recall: kind[01] [\d.]+ of 2, kind[01] [\d.]+ of 2", line)


def test_the_rate_found_for_the_head_sets_both_phases(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), weights)
    arguments = ["--data", str(make_folder(40)), *TINY, "--weights", str(weights), "--lr", "auto"]
    out = tmp_path / "run"
    assert main(["train", *arguments, "--epochs", "1", "--freeze-epochs", "1", "--out", str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["lr"] == "auto"
    lr = config["resolved"]["lr"]
    assert f"the learning rate finder suggests {lr:.2e}" in capsys.readouterr().out
    highest = max(float(row["lr"]) for row in csv.DictReader((out / "steps.csv").read_text().splitlines()))
    assert highest <= lr
    assert (out / "lr_finder.png").exists()
    # Nothing is left to do, but the original command may be repeated, and the rate that was found is kept.
    rest = ["--epochs", "1", "--freeze-epochs", "1", "--out", str(out), "--resume", str(out)]
    assert main(["train", *arguments, *rest]) == 0
    again = json.loads((out / "config.json").read_text())
    assert again["settings"]["lr"] == "auto"
    assert again["resolved"] == config["resolved"]


def test_a_missing_tensorboard_is_found_before_the_data_set_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(["train", "--data", str(tmp_path / "nowhere"), "--track", "tensorboard"]) == 1
    assert capsys.readouterr().err == "error: --track: tensorboard is not installed; pip install tensorboard\n"


def test_all_ranks_train_on_equal_batches_without_augmentation(make_folder: Callable[..., Path]) -> None:
    config = TrainConfig(data=str(make_folder(40)), augment="none", batch_size=64, size="16")
    train_loader, _ = build_loaders(config, *build_datasets(config), config.preprocessing(), "cpu")
    sampler, num_items = train_loader.sampler, len(train_loader.dataset)
    ranks = [
        batch_slices(num_items, 64, drop_last=sampler.drop_last, even=sampler.even, rank=rank, world_size=3)
        for rank in range(3)
    ]
    sizes = [[len(range(num_items)[batch]) for batch in batches] for batches in ranks]
    assert sizes == [[num_items // 3]] * 3


def test_a_run_in_the_current_folder_has_its_name_in_the_report(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, here = make_folder(20), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["train", "--data", str(folder), *TINY, "--epochs", "1", "--num-workers", "0", "--out", "."]) == 0
    assert "<title>here: training report - fastpets</title>" in (here / "report.html").read_text()


def test_the_lines_of_other_ranks_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("RANK", "1")
    assert list(track([1, 2], "counting", 2)) == [1, 2]
    assert terminal.getvalue() == ""


def test_a_run_continues_from_another_runs_weights_with_its_head(
    drawn_classes: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--arch", "shufflenet_v2_x0_5", "--weights", str(trained_run), "--size", "32", "--batch-size", "8"]
    flags += ["--device", "cpu", "--schedule", "frozen 1 1e-12", "--bn", "eval"]
    assert main(["train", "--data", str(drawn_classes), *flags, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert f"weights: {trained_run}: the head is kept, since the 3 classes are the same\n" in out
    before, after = (load_file(run / "model.safetensors") for run in (trained_run, tmp_path / "run"))
    name = "head.6.weight"
    assert torch.allclose(before[name], after[name], atol=1e-9)

"""`fastpets compare`, `fastpets report` and `fastpets lr-find`, and tables without float32's noise."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fastpets.cli import main
from fastpets.compare import differences
from fastpets.data.splits import train_valid_datasets
from fastpets.runs.images import save_images


def copied(run: Path, to: Path, errors: list[float], **settings: object) -> Path:
    """A copy of a run with other error rates and settings."""
    to.mkdir()
    config = json.loads((run / "config.json").read_text())
    config["settings"] |= settings
    (to / "config.json").write_text(json.dumps(config))
    shutil.copy(run / "images.parquet", to)
    (row, *_) = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    with open(to / "metrics.csv", "w") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(row | {"epoch": n, "error_rate": error, "seconds": 65} for n, error in enumerate(errors))
    return to


def test_runs_are_in_the_order_of_their_errors_with_the_settings_that_differ(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = copied(trained_run, tmp_path / ("worse " * 9).strip(), [0.5, 0.25], split_seed=7, newer=1)
    better = copied(trained_run, tmp_path / "better", [0.125, 0.5, 0.1875])
    assert main(["compare", str(worse), str(better), "--out", str(tmp_path / "x.png")]) == 0
    heading, *rows, title, newer, seed, curves = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "epochs", "error", "lowest", "error", "loss", "time"]
    assert [row.split()[-5:-2] for row in rows] == [["3", "0.1875", "0.1250"], ["2", "0.2500", "0.2500"]]
    assert [row.split()[-1] for row in rows] == ["3:15", "2:10"]
    assert {len(line) for line in (heading, *rows)} <= set(range(81))
    assert title == "settings that differ, of runs 1 | 2:"
    assert sorted([newer, seed]) == ["  --newer  - | 1", "  --split-seed  42 | 7"]
    assert curves == f"curves: {tmp_path / 'x.png'}"
    with Image.open(tmp_path / "x.png") as image:
        assert image.size[0] > 1000


def test_settings_are_shown_as_flags_without_those_that_have_no_effect() -> None:
    one = {"metrics": ["recall", "top5"], "amp": True, "k_fold": None, "weights": "none", "freeze_epochs": 3, "lr": "1"}
    other = {"metrics": [], "amp": False, "k_fold": [0, 5], "weights": "none", "freeze_epochs": 0, "lr": "1"}
    assert differences([one, other]) == ["  --metrics  recall top5 | -", "  --amp  yes | no", "  --k-fold  - | 0 5"]
    scheduled = one | {"schedule": "unfrozen 2 1e-3", "lr": "2"}
    assert differences([one, scheduled]) == ["  --lr  1 | -", "  --schedule  - | unfrozen 2 1e-3"]


def test_runs_on_other_images_are_said_first_and_keep_their_order(
    trained_run: Path, drawn_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copied(trained_run, tmp_path / "other", [1.0], split_seed=7)
    save_images(other, *train_valid_datasets(drawn_classes, split_seed=7))
    assert main(["compare", str(other), str(trained_run), "--out", str(tmp_path / "x.png")]) == 0
    first, _, *rows = capsys.readouterr().out.splitlines()
    assert first == "the runs validate on different images: their errors cannot be compared, and they are not ranked"
    assert [row.split()[1] for row in rows[:2]] == ["other", trained_run.name]


def test_what_is_no_run_is_one_line(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(trained_run), str(tmp_path)]) == 1
    assert "No such file or directory, expected the settings of a run" in capsys.readouterr().err
    shutil.copy(trained_run / "config.json", tmp_path)
    assert main(["compare", str(trained_run), str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err == f"error: runs: {tmp_path}: no epoch is complete, expected a run with metrics.csv\n"
    )


def test_the_page_of_a_run_is_written_again(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "trained"
    shutil.copytree(trained_run, run)
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert main(["report", str(run), "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    assert (run / "report.html").read_text().count("fastpets train --data") == before.count("fastpets train --data") > 0


def test_the_learning_rate_finder_suggests_what_training_takes(
    drawn_classes: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--arch", "squeezenet1_1", "--weights", "none", "--size", "32", "--batch-size", "8", "--device", "cpu"]
    out = tmp_path / "curve.png"
    assert main(["lr-find", str(drawn_classes), *flags, "--num-steps", "40", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if not line.startswith("the curve is too noisy")]
    assert [line.split("  ")[0] for line in lines] == [
        "valley",
        "steep",
        "minimum / 10",
        f"curve: {out}",
    ]
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["lr-find", str(drawn_classes), "--out", str(tmp_path / "nowhere" / "x.png")]) == 1
    assert (
        capsys.readouterr().err == f"error: --out: {tmp_path / 'nowhere'}: no such folder, expected an existing one\n"
    )


def test_tables_have_seven_digits(trained_run: Path) -> None:
    for name in ("metrics.csv", "steps.csv"):
        for row in csv.DictReader((trained_run / name).read_text().splitlines()):
            for text in row.values():
                digits = text.lower().partition("e-")[0].replace(".", "").lstrip("0")
                assert len(digits) <= 7 or not digits.isdigit(), (name, text)

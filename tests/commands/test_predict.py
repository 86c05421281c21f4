"""`fastpets predict`: validation's pixels and logits, all kinds of input, and images that cannot be used."""

import csv
import inspect
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

from fastpets.cli import main
from fastpets.data.splits import train_valid_datasets
from fastpets.predict import PredictConfig, as_csv, image_paths
from fastpets.runs.build import build_datasets, build_loaders
from fastpets.runs.config import read_config
from fastpets.runs.predictor import load


def standard_input(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(os.fsencode(text)))


def test_pixels_equal_those_of_validation_and_logits_agree(trained_run: Path) -> None:
    config = read_config(trained_run)
    train_dataset, valid_dataset = build_datasets(config)
    run = load(trained_run, "cpu")
    _, valid = build_loaders(config, train_dataset, valid_dataset, run.preprocessing, "cpu")
    again = run.loader(list(valid_dataset.paths), batch_size=valid.batch_size)
    alone = run.loader(list(valid_dataset.paths), batch_size=1)
    one_by_one = iter(alone)
    with torch.inference_mode():
        for batch, same in zip(valid, again, strict=True):
            assert torch.equal(batch.images, same.images)
            logits = run.model(batch.images)
            assert torch.equal(run.model(same.images), logits)
            for row in range(len(batch.labels)):
                single = next(one_by_one).images
                assert torch.equal(single[0], batch.images[row])
                assert (run.model(single)[0] - logits[row]).abs().max() < 1e-5


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_files_folders_patterns_and_standard_input_are_accepted(
    trained_run: Path, drawn_classes: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    _, valid = train_valid_datasets(drawn_classes)
    capsys.readouterr()
    some = list(valid.paths)[:2]
    monkeypatch.setattr("sys.stdin", standard_input("\n".join(some) + "\n"))
    sources = [some[0], str(drawn_classes / "beagle_*.jpg"), str(drawn_classes), "-"]
    flags = ["--format", form, "--top", "2", "--device", "cpu"]
    assert main(["predict", str(trained_run), *sources, *flags]) == 0
    printed = capsys.readouterr().out
    expected = 1 + 20 + 60 + 2
    if form == "json":
        rows = json.loads(printed)
        assert all(len(row["classes"]) == 2 and max(row["classes"].values()) <= 1 for row in rows)
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(printed)))
        assert list(rows[0]) == ["file", "class_1", "probability_1", "class_2", "probability_2"]
    else:
        rows = printed.splitlines()
    assert len(rows) == expected


def test_bad_images_are_listed_the_others_predicted_and_the_status_is_1(
    trained_run: Path, drawn_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    good = drawn_classes / "beagle_0.jpg"
    text, cut, gone = tmp_path / "text.jpg", tmp_path / "cut.jpg", tmp_path / "gone.jpg"
    text.write_text("no image")
    cut.write_bytes(good.read_bytes()[:1500])
    sources = [str(path) for path in (text, good, cut, gone)]
    assert main(["predict", str(trained_run), *sources, "--format", "json", "--device", "cpu"]) == 1
    stdout, stderr = capsys.readouterr()
    assert [row["file"] for row in json.loads(stdout)] == [str(good)]
    for path, problem in ((text, "begins with"), (cut, "not decoded"), (gone, "unreadable")):
        (line,) = (line for line in stderr.splitlines() if line.startswith(f"{path}: "))
        assert problem in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no images named, expected files, folders, patterns"),
        (["nowhere-to-be-found"], "no image to load"),
    ],
)
def test_no_images_are_an_error(
    trained_run: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    status = main(["predict", str(trained_run), *arguments, "--device", "cpu"])
    stdout, stderr = capsys.readouterr()
    assert (status, stdout) == (1, "") or status == 1
    assert message in stderr or "unreadable" in stderr


@pytest.mark.parametrize("command", ["predict RUN a.jpg", "report RUN", "export RUN", "serve RUN", "suspects RUN",
                                     "compare RUN"])  # fmt: skip
def test_a_run_that_is_not_there_is_one_line(command: str, capsys: pytest.CaptureFixture) -> None:
    assert main([part.replace("RUN", "no/run") for part in command.split()]) == 1
    assert re.fullmatch(r"error: runs?: no/run: nothing there, expected the folder of a run\n", capsys.readouterr().err)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["predict", str(tmp_path), "a.jpg"]) == 1
    assert (
        "model.json: No such file or directory, expected the description of a trained model" in capsys.readouterr().err
    )


def test_a_pattern_that_matches_folders_gives_each_of_their_images_once(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(4)
    expected = sorted(str(path) for path in folder.iterdir())
    assert sorted(image_paths([f"{folder.parent}/ima*"])) == expected
    assert sorted(image_paths([f"{folder}/**"])) == expected


def test_empty_standard_input_is_an_error(
    trained_run: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", standard_input(""))
    assert main(["predict", str(trained_run), "-", "--device", "cpu", "--num-workers", "0"]) == 1
    assert capsys.readouterr().err == "error: standard input: empty, expected the path of an image on each line\n"


def test_a_file_name_that_is_not_utf8_is_printed(trained_run: Path, drawn_classes: Path, tmp_path: Path) -> None:
    """As a table; as CSV and JSON in test_non_utf8.py."""
    path = os.fsencode(tmp_path) + b"/\xff.jpg"
    Path(os.fsdecode(path)).write_bytes((drawn_classes / "beagle_0.jpg").read_bytes())
    command = [sys.executable, "-m", "fastpets", "predict", str(trained_run), "-", "--device", "cpu"]
    child = subprocess.run(
        command, input=path, capture_output=True, check=False, env=os.environ | {"LC_ALL": "C.UTF-8"}
    )
    assert (child.returncode, child.stderr) == (0, b"")
    assert rb"\udcff.jpg" in child.stdout


ODD_NAMES = [
    "line\u2028break.jpg",
    "carriage\rreturn.jpg",
    "form\x0cfeed.jpg",
    "next\x85line.jpg",
    "\x1cseparator.jpg",
    "b.jpg ",
]


def test_only_line_breaks_or_only_nul_separate_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for separator, names in (("\n", ODD_NAMES), ("\0", [*ODD_NAMES, "two\nlines.jpg"])):
        for text in (separator.join(names), separator.join(names) + separator):
            monkeypatch.setattr("sys.stdin", standard_input(text))
            assert list(image_paths(["-"], separator)) == names


def test_names_that_end_in_nul_need_the_flag(
    trained_run: Path,
    drawn_classes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd = tmp_path / "two\nlines.jpg"
    odd.write_bytes((drawn_classes / "beagle_0.jpg").read_bytes())
    for flags, status in ((["-0"], 0), (["--null"], 0), ([], 1)):
        monkeypatch.setattr("sys.stdin", standard_input(f"{odd}\0"))
        assert main(["predict", str(trained_run), "-", "--device", "cpu", "--format", "json", *flags]) == status
        stdout, stderr = capsys.readouterr()
        if status == 0:
            assert [row["file"] for row in json.loads(stdout)] == [str(odd)]
        else:
            assert stderr == "error: standard input: a NUL, expected a path on each line, or --null\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_a_csv_has_names_as_they_are(start: str) -> None:
    """A spreadsheet would compute them, which the help says."""
    name = f'{start}HYPERLINK("x", "y")'
    assert list(csv.reader(io.StringIO(as_csv([(name, [(name, 0.5)])]))))[1] == [name, name, "0.500000"]
    assert "formula" in inspect.getsource(PredictConfig)

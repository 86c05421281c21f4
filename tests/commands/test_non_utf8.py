"""Names and labels that are not UTF-8 through every command and format: escaped when printed, lossless when written."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import drawing

CLASSES = (b"caf\xe9", b"\xff\xfe", "日本\n".encode())
# Runs command lines one after another and prints the status of each.
PROGRAM = """
import json, sys
from fastpets.cli import main
for arguments in json.loads(sys.argv[1]):
    status = main(arguments)
    sys.stdout.flush()
    print(f"== {arguments[0]} {status}", flush=True)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders of 12 images each, and a file that is no image. No name but the suffixes is ASCII."""
    folder = tmp_path_factory.mktemp("photos") / os.fsdecode(b"\xe9t\xe9")
    for number in range(36):
        path = folder / os.fsdecode(CLASSES[number % 3]) / os.fsdecode(b"\xfc\n%d.jpg" % number)
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(40, 50, seed=number).save(path)
    path.with_name(os.fsdecode(b"bad\xff.jpg")).write_text("no image")
    path.with_name(os.fsdecode(b"notes\xff.txt")).write_text("ignored")
    return folder


def commands(folder: Path, *lines: list[str], **environment: str) -> tuple[dict[str, int], bytes, bytes]:
    """The status of each command, what they printed, and their messages. They run in `folder`."""
    root = Path(__file__).parents[2]
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(lines)],
        capture_output=True, check=False, cwd=folder, env=os.environ | {"PYTHONPATH": str(root)} | environment,
    )  # fmt: skip
    words = [line.split() for line in child.stdout.splitlines() if line.startswith(b"== ")]
    return {name.decode(): int(status) for _, name, status in words}, child.stdout, child.stderr


@pytest.mark.slow
def test_every_command_escapes_what_it_prints_and_writes_what_was_there(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / os.fsdecode(b"r\xfcn")
    settings = ["--size", "32", "--on-bad-file", "skip"]
    flags = ["--arch", "squeezenet1_1", "--weights", "none", "--device", "cpu", "--metrics", "recall"]
    statuses, stdout, stderr = commands(
        tmp_path,
        ["check", str(photos)],
        ["summary", str(photos), *settings, "--out", os.fsdecode(b"trace\xff.png")],
        ["show", str(photos), *settings],
        ["train", "--data", str(photos), *settings, *flags, "--schedule", "unfrozen 1 1e-3", "--out", str(run),
         "--cache", "disk", "--cache-dir", str(tmp_path / os.fsdecode(b"c\xe9"))],
        ["cache", "list", "--cache-dir", str(tmp_path / os.fsdecode(b"c\xe9"))],
        ["predict", str(run), str(photos), "--device", "cpu"],
        ["export", str(run), "--format", "torch"],
        LC_ALL="C.UTF-8",
    )  # fmt: skip
    assert statuses == {
        "check": 1, "summary": 0, "show": 0, "train": 0, "cache": 0, "predict": 1, "export": 0,
    }, stderr.decode(errors="replace")  # fmt: skip
    text = stdout.decode() + stderr.decode()  # all of it is UTF-8
    assert r"caf\udce9" in text
    assert r"\udcff\udcfe" in text
    assert r"日本\n" in text
    bad = os.path.join(photos, os.fsdecode(CLASSES[2]), os.fsdecode(b"bad\xff.jpg"))
    for file in (tmp_path / "bad_files.csv", run / "bad_files.csv"):
        with open(file, newline="", encoding="utf-8", errors="surrogateescape") as opened:
            assert [row["file"] for row in csv.DictReader(opened)] == [bad]
    assert json.loads((run / "model.json").read_text())["classes"] == sorted(map(os.fsdecode, CLASSES))
    with open(run / "metrics.csv", newline="", encoding="utf-8", errors="surrogateescape") as opened:
        assert set(next(csv.reader(opened))) >= {f"recall/{os.fsdecode(name)}" for name in CLASSES}
    report = (run / "report.html").read_text(encoding="utf-8")
    assert all(name in report for name in (r"caf\\udce9", r"\\udcff\\udcfe"))  # in the page's JSON


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_predictions_as_csv_and_json_have_the_bytes_of_the_names(trained_run: Path, photos: Path, locale: str) -> None:
    """In the locale C, with ASCII as its encoding, no name is text for Python."""
    paths = sorted(os.fsencode(path) for path in photos.rglob("*.jpg") if not path.name.startswith("bad"))
    for form in ("csv", "json"):
        command = [sys.executable, "-m", "fastpets", "predict", str(trained_run), "-0", "-", "--device", "cpu"]
        child = subprocess.run(
            [*command, "--format", form], input=b"\0".join(paths), capture_output=True, check=False,
            env=os.environ | {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        )  # fmt: skip
        assert (child.returncode, child.stderr) == (0, b"")
        if form == "json":
            names = [row["file"] for row in json.loads(child.stdout)]
        else:
            text = child.stdout.decode("utf-8", "surrogateescape")
            names = [row["file"] for row in csv.DictReader(text.splitlines(keepends=True))]
        assert [name.encode("utf-8", "surrogateescape") for name in names] == paths

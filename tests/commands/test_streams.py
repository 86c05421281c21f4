"""Standard streams that are closed, full or no longer read: no traceback, and no result is lost."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = shlex.quote(sys.executable)
NO_SPACE = "error: standard output: No space left on device; lines are missing there\n"


def shell(command: str, **environment: str) -> tuple[int, str, str]:
    """The exit status, the output and the messages of a line for bash."""
    child = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        check=False,
        env=os.environ | environment,
        text=True,
        errors="replace",
    )
    return child.returncode, child.stdout, child.stderr


# Prints its open files, a character that is not ASCII, and a byte that is not UTF-8.
PROGRAM = """
import os, sys
from fastpets import streams
streams.open_closed()
with streams.lasting("stderr"), streams.lasting("stdout") as output:
    with open(sys.argv[1], "w") as file:
        print(file.fileno() > 2, file=file)
        print("\\u65e5 \\udcff", "x" * 100_000)
        print("a message", file=sys.stderr)
        print(output is not None and output.error is not None, file=file)
"""


@pytest.mark.parametrize(
    ("redirections", "is_lost"),
    [
        ("", False),
        (">&-", False),
        ("2>&-", False),
        ("<&-", False),
        (">&- 2>&- <&-", False),
        ("| head -c 1", False),
        ("2>&1 | head -c 1", False),
        (">/dev/full", True),
        ("2>/dev/full", False),
        ("</dev/null >/dev/null 2>&1", False),
    ],
)
def test_nothing_is_raised_and_no_file_takes_the_place_of_a_closed_stream(
    tmp_path: Path, redirections: str, is_lost: bool
) -> None:
    file = tmp_path / "result"
    command = f"set -o pipefail; {PYTHON} -c {shlex.quote(PROGRAM)} {shlex.quote(str(file))} {redirections}"
    status, _, stderr = shell(command)
    assert status == 0
    assert stderr in ("", "a message\n")
    assert file.read_text() == f"True\n{is_lost}\n"


@pytest.mark.parametrize(("encoding", "expected"), [("utf-8", "日 \\udcff x"), ("ascii", "\\u65e5 \\udcff x")])
def test_what_an_encoding_lacks_is_escaped(tmp_path: Path, encoding: str, expected: str) -> None:
    command = f"{PYTHON} -c {shlex.quote(PROGRAM)} {shlex.quote(str(tmp_path / 'result'))}"
    status, stdout, stderr = shell(command, PYTHONIOENCODING=encoding)
    assert (status, stderr) == (0, "a message\n")
    assert stdout.startswith(expected)


@pytest.mark.parametrize(
    ("redirections", "status", "message"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">&- 2>&- <&-", 0, ""),
        ("| head -1", 0, ""),
        (">/dev/full", 1, NO_SPACE),
        (">/dev/full 2>/dev/full", 1, ""),
        ("2>/dev/full", 0, ""),
    ],
)
def test_a_command_ends_with_its_own_status(redirections: str, status: int, message: str) -> None:
    found, _, stderr = shell(f"set -o pipefail; {PYTHON} -m fastpets cache list {redirections}")
    assert (found, stderr) == (status, message)
    found, _, stderr = shell(f"set -o pipefail; {PYTHON} -m fastpets nonsense {redirections}")
    assert found == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirections", "status", "message"),
    [("| head -1", 0, ""), (">/dev/full", 1, NO_SPACE), (">&- 2>&- <&-", 0, "")],
)
def test_training_ends_with_its_model_and_report(
    drawn_classes: Path, tmp_path: Path, redirections: str, status: int, message: str
) -> None:
    flags = "--arch squeezenet1_1 --weights none --size 32 --batch-size 16 --device cpu"
    command = f"{PYTHON} -m fastpets train --data {shlex.quote(str(drawn_classes))} {flags} --out {tmp_path}/run"
    command += " --schedule 'unfrozen 2 1e-3'"
    found, _, stderr = shell(f"set -o pipefail; {command} {redirections}")
    assert (found, stderr) == (status, message)
    files = {file.name for file in (tmp_path / "run").iterdir()}
    assert {"model.json", "model.safetensors", "metrics.csv", "report.html"} <= files


@pytest.mark.slow
def test_predictions_that_cannot_be_written_are_an_error(trained_run: Path, drawn_classes: Path) -> None:
    command = f"{PYTHON} -m fastpets predict {trained_run} {drawn_classes}/beagle_0.jpg --device cpu --format json"
    assert shell(f"{command} > /dev/full") == (1, "", NO_SPACE)
    status, stdout, stderr = shell(f"setsid {command} < /dev/null 2>&-")  # no terminal
    assert (status, stderr, len(json.loads(stdout))) == (0, "", 1)

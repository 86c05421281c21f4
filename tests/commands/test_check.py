"""`fastpets check` lists every image that cannot be used, and no other."""

import contextlib
import csv
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastpets.cli import main
from tests.images import drawing, encode

COMMAND = [sys.executable, "-m", "fastpets.check"]
NOT_UTF8 = os.fsdecode(b"kind1_\xff.jpg")


def spoil(folder: Path) -> list[str]:
    """Adds four bad images, for different decoders, and a text file to a folder; returns the bad paths, sorted."""
    (folder / "kind0_0.jpg").write_bytes(b"")
    (folder / "kind0_2.jpg").write_bytes((folder / "kind0_2.jpg").read_bytes()[:900])
    (folder / "kind1\n_1.jpg").write_text("no image")
    (folder / NOT_UTF8).write_bytes(encode(drawing(30, 40), "GIF")[:-200])
    (folder / "notes.txt").write_text("not an image")
    return [str(folder / name) for name in ("kind0_0.jpg", "kind0_2.jpg", "kind1\n_1.jpg", NOT_UTF8)]


def listed(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_every_bad_file_is_printed_on_its_own_line_counted_and_saved(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(20)
    bad = spoil(folder)
    child = subprocess.run([*COMMAND, folder], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (1, "")
    *lines, ignored, summary, saved = child.stdout.splitlines()
    shown = [path.replace("\n", r"\n").replace("\udcff", r"\udcff") for path in bad]
    assert [line.split(": ")[0] for line in lines] == shown
    assert all("expected an image" in lines[number] for number in (0, 2))
    assert all("truncated" in lines[number] for number in (1, 3))
    assert ignored == "ignored 1 file without an image's suffix"
    assert summary == "22 files: 18 good, 4 bad"
    assert saved == "list of bad files: bad_files.csv"
    heading, *rows = listed(tmp_path / "bad_files.csv")
    assert heading == ["file", "problem"]
    assert [path for path, _ in rows] == bad
    assert [problem for _, problem in rows] == [line.split(": ", 1)[1] for line in lines]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad_files.csv", "images"]


def test_no_list_is_written_if_all_images_are_good(
    make_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(make_folder(20)), "--num-workers", "1"]) == 0
    assert capsys.readouterr() == ("20 files: 20 good, 0 bad\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_empty_list_is_written_on_request(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    assert main(["check", str(make_folder(2)), "--out", str(tmp_path / "list.csv")]) == 0
    assert listed(tmp_path / "list.csv") == [["file", "problem"]]


@pytest.mark.parametrize("content", [b"", b"no image", encode(drawing(30, 40), "JPEG")[:700]])
def test_bad_files_are_listed_if_all_files_are_bad(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    folder = make_folder(20)
    for path in folder.iterdir():
        path.write_bytes(content)
    assert main(["check", str(folder), "--out", str(tmp_path / "list.csv")]) == 1
    assert "20 files: 0 good, 20 bad\n" in capsys.readouterr().out
    assert [path for path, _ in listed(tmp_path / "list.csv")[1:]] == sorted(map(str, folder.iterdir()))


def test_an_image_of_more_than_max_pixels_is_a_bad_file(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(3)  # of 40 x 50, 47 x 61 and 54 x 72 px
    assert main(["check", str(folder), "--max-pixels", "2867", "--out", str(tmp_path / "list.csv")]) == 1
    line, summary, _ = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder}/kind0_2.jpg: 72 x 54 px, expected at most 2,867 pixels")
    assert summary == "3 files: 2 good, 1 bad"


def test_a_list_that_cannot_be_saved_is_printed_and_no_file_changes(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(2)
    (folder / "kind0_0.jpg").write_bytes(b"")
    for out in (tmp_path / "nowhere" / "list.csv", folder, folder / "kind1_1.jpg" / "list.csv"):
        before = sorted(tmp_path.rglob("*"))
        assert main(["check", str(folder), "--out", str(out)]) == 1
        printed = capsys.readouterr()
        assert f"{folder}/kind0_0.jpg: 0 bytes" in printed.out
        assert printed.err.startswith(f"error: --out: {out}: ")
        assert printed.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before


def test_a_list_that_does_not_fit_on_the_disk_leaves_the_earlier_one(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder, table = make_folder(2), tmp_path / "list.csv"
    (folder / "kind0_0.jpg").write_bytes(b"")
    table.write_text("file,problem\n")
    before = sorted(tmp_path.rglob("*"))
    child = subprocess.run([*COMMAND, folder, "--out", table], capture_output=True, text=True, check=False,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40)))  # fmt: skip
    assert (child.returncode, table.read_text()) == (1, "file,problem\n")
    assert child.stderr.startswith(f"error: --out: {table}: File too large")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, found in (
        ([f"{tmp_path}/nowhere"], "nothing there, expected a folder of images"),
        ([f"{tmp_path}"], "no image among 0 files"),
        ([f"{tmp_path}", "--num-workers", "-1"], "--num-workers: -1, expected a value from 0 to 1024"),
        ([f"{tmp_path}", "--max-pixels", "0"], "--max-pixels: 0, expected a value from 1 to"),
    ):
        assert main(["check", *arguments]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert found in printed.err
        assert printed.err.count("\n") == 1


def test_a_terminal_shows_a_progress_bar(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    terminal, end_of_child = pty.openpty()
    child = subprocess.Popen([*COMMAND, make_folder(40)], cwd=tmp_path, stderr=end_of_child, stdout=subprocess.DEVNULL)
    os.close(end_of_child)
    shown = b""
    with contextlib.suppress(OSError):  # raised when the child has closed its end
        while True:
            shown += os.read(terminal, 2**16)
    os.close(terminal)
    assert child.wait() == 0
    assert b"decoding" in shown
    assert b"2/2" in shown


def test_ctrl_c_prints_one_line_and_exits_with_130(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    # The progress bar shows that the child is at work, which it is for more than a second.
    folder, name = make_folder(1), "kind0_0.jpg"
    for number in range(20_000):
        os.link(folder / name, folder / f"kind0_{number + 1}.jpg")
    terminal, end_of_child = pty.openpty()
    child = subprocess.Popen([*COMMAND, folder], stdout=-1, stderr=end_of_child, text=True, cwd=tmp_path)
    os.close(end_of_child)
    shown = b""
    while b"reading headers" not in shown:
        shown += os.read(terminal, 2**16)
    child.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # raised when the child has closed its end
        while chunk := os.read(terminal, 2**16):
            shown += chunk
    os.close(terminal)
    assert (child.wait(), child.communicate()[0]) == (130, "")
    assert shown.endswith(b"\nstopped before all files were checked\r\n")
    assert b"Traceback" not in shown

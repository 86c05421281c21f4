"""The command line that all commands share: their help, their errors, and flags in messages of the library."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fastpets.check import CheckConfig
from fastpets.cli import COMMANDS, main
from fastpets.export import ExportConfig
from fastpets.flags import command_line, with_flags
from fastpets.runs.config import OF_ONE_RUN, TrainConfig
from fastpets.show import ShowConfig

# Prints the help of each command, its status, and the heavy libraries that are imported then.
PROGRAM = """
import sys
from fastpets.cli import COMMANDS, main
for name in COMMANDS:
    status = main([name, "--help"])
    print("==", name, status, {"torch", "numba", "nvidia.dali", "matplotlib"} & set(sys.modules), flush=True)
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_overview_lists_all_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    overview = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name:<9} {command.summary}\n" in overview


def test_help_imports_neither_torch_nor_numba() -> None:
    child = python("-c", PROGRAM)
    *printed, end = re.split(r"^== (.*)\n", child.stdout, flags=re.MULTILINE)
    assert printed[1::2] == [f"{name} 0 set()" for name in COMMANDS], child.stderr
    assert [text.split(maxsplit=3)[:3] for text in printed[::2]] == [["usage:", "fastpets", name] for name in COMMANDS]
    assert (child.returncode, end) == (0, "")


def test_help_lists_all_flags() -> None:
    child = python("-m", "fastpets", "train", "--help")
    for name in TrainConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in child.stdout


def test_a_command_runs_by_the_package_and_by_its_module(tmp_path: Path) -> None:
    by_package, by_module = (
        python("-m", "fastpets", "check", str(tmp_path)),
        python("-m", "fastpets.check", str(tmp_path)),
    )
    assert by_package.returncode == by_module.returncode == 1
    assert by_package.stderr == by_module.stderr
    assert by_package.stderr.startswith(f"error: {tmp_path}: no image among 0 files")


def test_an_unknown_command_is_one_line_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "--data", "photos"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'trian', expected one of train, check, ")
    assert error.endswith("; did you mean train?\n")
    assert main(["x"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_a_warning_is_printed_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warns(config: object) -> int:
        for message in ("lr: low", "lr: low", "lr: high"):
            warnings.warn(message, stacklevel=1)
        return 0

    monkeypatch.setattr("fastpets.recipes.recipes", warns)
    assert main(["recipes"]) == 0
    assert capsys.readouterr().err == "warning: lr: low\nwarning: lr: high\n"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("lr: 'x', expected a number", "--lr: 'x', expected a number"),
        ("num_workers: 0, expected a value from 1 to 1024", "--num-workers: 0, expected a value from 1 to 1024"),
        ("/photos/lr: nothing there", "/photos/lr: nothing there"),
        ("unknown_name: 3, expected 4", "unknown_name: 3, expected 4"),
        ("take on_bad_file='skip'", "take --on-bad-file skip"),
        ("batch_size=4 with accumulate=2, or clip_norm=1.", "--batch-size 4 with --accumulate 2, or --clip-norm 1."),
        ("consider sampler='balanced' or class_weights=True", "consider --sampler balanced or --class-weights"),
        ("take amp=False; mix=None", "take --no-amp; --mix None"),
        ("take label_pattern='(a b)_'", "take --label-pattern '(a b)_'"),
        ("shrink it, or raise max_pixels", "shrink it, or raise --max-pixels"),
        ("/photos/max_pixels/a_batch_size.jpg: 0 bytes", "/photos/max_pixels/a_batch_size.jpg: 0 bytes"),
        ("make it with num_classes=len(train.classes)", "make it with num_classes=len(train.classes)"),
        ("the size of the data, the seed", "the size of the data, the seed"),
    ],
)
def test_parameters_in_messages_become_flags(message: str, expected: str) -> None:
    assert with_flags(message, TrainConfig) == expected


def test_only_flags_of_the_command_are_replaced() -> None:
    assert with_flags("source: 3, expected a folder", CheckConfig) == "source: 3, expected a folder"
    assert with_flags("run: 3, expected a folder", ExportConfig) == "run: 3, expected a folder"
    assert with_flags("data: 3, expected a folder", ShowConfig) == "--data: 3, expected a folder"
    assert with_flags("take on_bad_file='skip'", CheckConfig) == "take on_bad_file='skip'"
    assert with_flags("format: 'onnx' needs onnx", ExportConfig) == "--format: 'onnx' needs onnx"
    assert with_flags("lr: 3", None) == "lr: 3"


def test_the_command_line_of_a_configuration_has_the_flags_that_differ_from_their_defaults() -> None:
    config = TrainConfig(data="my photos", arch="resnet50", amp=True, metrics=("top5", "recall"), out=Path("runs/x"))
    expected = "fastpets train --data 'my photos' --arch resnet50 --amp --metrics top5 recall"
    assert command_line("train", config, OF_ONE_RUN) == expected  # a repeated run has a folder of its own


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("show", "arch lr tta resume track cache batch_size device"),
        ("summary", "arch lr tta resume track cache batch_size sampler device"),
        ("ceiling", "lr tta resume track epochs schedule out metrics"),
    ],
)
def test_help_lists_no_flags_without_an_effect(name: str, without: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--presize-method" in shown
    assert [flag for flag in without.split() if f"--{flag.replace('_', '-')} " in shown] == []

"""Flags: what a command line gives, errors of one line with the nearest flag, and the help."""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import fastpets
from fastpets.cli import COMMANDS, main
from fastpets.flags import UsageError, flag_names, groups, parse
from fastpets.predict import PredictConfig
from fastpets.runs.config import TrainConfig
from fastpets.show import ShowConfig


def parsed(line: str, config_class: Any = TrainConfig) -> Any:
    return parse(config_class, line.split(), "fastpets x")


def config_classes() -> dict[str, type]:
    return {
        name: getattr(importlib.import_module(f"fastpets.{command.module or name.replace('-', '_')}"), command.config)
        for name, command in COMMANDS.items()
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("photos", {"data": "photos"}),
        ("--data photos", {"data": "photos"}),
        ("photos --epochs 3 --amp", {"epochs": 3, "data": "photos", "amp": True}),
        ("--metrics top5 recall --lr 1e-3", {"metrics": ("top5", "recall"), "lr": "1e-3"}),
        ("--sampler balanced --cache-gb 1.5 --presize 300", {"sampler": "balanced", "cache_gb": 1.5, "presize": 300}),
        ("--sampler None --presize None --weights none", {"weights": "none"}),
        ("--out runs/x --epochs=2", {"out": Path("runs/x"), "epochs": 2}),
        ("--mix both --mix mixup", {"mix": "mixup"}),
    ],
)
def test_a_line_gives_the_fields_that_it_names_and_defaults_for_the_others(line: str, expected: dict) -> None:
    assert parsed(line) == TrainConfig(**expected)


def test_several_values_by_their_places() -> None:
    config = parsed("-0 run a.jpg - b.jpg --top 2", PredictConfig)
    assert config == PredictConfig(run=Path("run"), sources=("a.jpg", "-", "b.jpg"), top=2, null=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--ephocs 3", "unknown flag --ephocs; did you mean --epochs?"),
        ("--qqq=3 --zzz", "unknown flag --qqq"),
        ("--epoch 3", "unknown flag --epoch; did you mean --epochs?"),  # no abbreviations
        ("--epochs three", "--epochs: invalid literal for int() with base 10: 'three'"),
        ("--ema much", "--ema: no type matching FLOAT could be instantiated from ['much']"),
        (
            "--mix mixups",
            "invalid choice 'mixups' for argument '--mix'. Expected one of ('none', 'mixup', 'cutmix', 'both')",
        ),
        ("--lr", "Missing value for argument '--lr'. Expected 1 values"),
        ("a b", "unexpected argument 'b'"),
    ],
)
def test_a_line_that_cannot_be_parsed_is_one_line(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}; fastpets x --help lists the flags$"):
        parsed(line)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(UsageError, match=r"^Missing from fastpets x: PATH The run folder\. "):
        parsed("", PredictConfig)


def test_what_cannot_be_parsed_has_status_2_and_what_is_invalid_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "x"]) == 2
    message = "--epochs: invalid literal for int() with base 10: 'x'; fastpets train --help lists the flags"
    assert capsys.readouterr().err == f"error: {message}\n"
    assert main(["train", "--epochs", "-1"]) == 1
    assert capsys.readouterr().err == "error: --epochs: -1, expected a value from 0 to 100000\n"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastpets {fastpets.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_each_flag_once_with_its_text_in_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "--help"]) == 0
    printed = capsys.readouterr().out  # with ruled headings instead of boxes, since its encoding is not called utf-8
    assert max(len(line) for line in printed.splitlines() if not line.startswith("usage: ")) <= 80  # tyro's line
    assert not re.search(r"\{None\b", printed)
    boxes = [line for line in printed.splitlines() if line.startswith("  ")]
    assert not re.search(r"\n +\n  +\S", printed)  # no empty line within a box
    options = [option for line in boxes for option in re.findall(r"^  (?:-[0h], )?(--[a-z0-9-]+)", line)]
    expected = [f"--{field.replace('_', '-')}" for field in flag_names(config_classes()[name])]
    assert sorted(options) == sorted(["--help", *expected])
    text = " ".join(line.strip() for line in boxes)
    for paragraph in re.split(r" (?=--[a-z])", text)[1:]:
        assert len(re.findall(r"default:", paragraph, re.IGNORECASE)) <= 1, paragraph
    assert "(default: None)" not in text


def test_every_flag_of_train_is_in_one_group() -> None:
    found = groups(TrainConfig)
    assert list(found) == ["recipe", "data", "augmentation", "model", "schedule", "machine", "run"]
    assert found["data"][0] == "data"
    grouped = [name for names in found.values() for name in names]
    assert sorted(grouped) == sorted(field.name for field in dataclasses.fields(TrainConfig))
    assert list(groups(ShowConfig)) == ["data", "augmentation", "machine", ""]

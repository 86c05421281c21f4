"""CUDA starts where a GPU is used, and nowhere else: programs run with a driver that notes its start.

A started driver costs a context on a GPU, and a forked child inherits one that does not work.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastpets.cli import COMMANDS
from tests.images import drawing

SOURCE = Path(__file__).parent / "libcuda.c"
PROGRAM = """
import contextlib, io, os, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")

def started(what):
    log = Path(os.environ["CUINIT_LOG"])
    if log.exists():
        print(what, "started CUDA")
        log.unlink()

def run(*arguments):
    from fastpets.cli import main
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        status = main(arguments)
    if status:
        print(*arguments, status, errors.getvalue())
    started(" ".join(arguments))
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the driver's library."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("driver")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", SOURCE], check=True)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(8):
        drawing(40, 50, seed=number).save(images / f"kind{number % 2}_{number}.jpg")
    return images


def lines(driver: Path, tmp_path: Path, program: str, *arguments: str) -> list[str]:
    """What a program prints, run with the driver."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "CUINIT_LOG": str(tmp_path / "started")}
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM + program, *arguments],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def test_the_driver_notes_its_start(driver: Path, tmp_path: Path) -> None:
    program = "import torch; torch.cuda.is_available(); started('torch')"
    assert lines(driver, tmp_path, program) == ["torch started CUDA"]


def test_importing_nvimagecodec_starts_cuda(driver: Path, tmp_path: Path) -> None:
    """So nothing on a CPU may import it."""
    assert lines(driver, tmp_path, "import nvidia.nvimgcodec; started('it')") == ["it started CUDA"]


def test_neither_importing_fastpets_nor_help_nor_a_loader_on_the_cpu_starts_cuda(
    driver: Path, tmp_path: Path, folder: Path
) -> None:
    program = """
import fastpets
for name in fastpets.__all__:
    getattr(fastpets, name)
started("import")
for name in sys.argv[2:]:
    run(name, "--help")
list(fastpets.Loader(sys.argv[1], device="cpu", size=16, batch_size=4, augment=True, cache="host"))
started("Loader")
assert "nvidia.nvimgcodec" not in sys.modules
"""
    assert lines(driver, tmp_path, program, str(folder), *COMMANDS) == []


@pytest.mark.slow
def test_commands_on_the_cpu_do_not_start_cuda(driver: Path, tmp_path: Path, folder: Path, trained_run: Path) -> None:
    """But for those in which torch itself asks for the number of GPUs: a backward pass, an optimizer, torch.export."""
    program = """
images, run_folder, out = sys.argv[1:]
run("check", images)
run("summary", images)
run("show", images, "--out", out)
run("models")
run("cache")
run("predict", run_folder, images, "--device", "cpu")
run("suspects", run_folder, "--device", "cpu")
run("compare", run_folder, "--out", out + "/compare.png")
"""
    out = tmp_path / "out"
    out.mkdir()
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    assert lines(driver, tmp_path, program, str(folder), str(run), str(out)) == []


def test_nvimagecodec_is_imported_with_the_loaders_gpu_as_the_current_one(
    driver: Path, tmp_path: Path, folder: Path
) -> None:
    program = """
import importlib.abc
import torch
from fastpets import Loader

current = [0]

class Current:
    def __init__(self, device):
        self.index = device.index
    def __enter__(self):
        current.append(self.index)
    def __exit__(self, *_):
        current.pop()

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "nvidia.nvimgcodec":
            print("imported on GPU", current[-1])

sys.meta_path.insert(0, Finder())
torch.cuda.device, torch.cuda.is_available, torch.cuda.device_count = Current, lambda: True, lambda: 2
loader = Loader(sys.argv[1], device="cuda:1", size=16)
assert len(current) == 1
"""
    assert lines(driver, tmp_path, program, str(folder)) == ["imported on GPU 1"]

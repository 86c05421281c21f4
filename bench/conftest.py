"""Fixtures of the benchmarks, a description of the machine, and tables of results after the run."""

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch

import fastpets
from fastpets.utils.system import num_processors

DISTRIBUTIONS = (
    *("torch", "torchvision", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "numpy", "numba", "pillow"),
    *("fastai", "timm", "opencv-python-headless", "opencv-python", "ultralytics", "ffcv"),
)


@pytest.fixture(scope="session")
def images() -> list[str]:
    """Paths of real images, from the folder FASTPETS_PETS."""
    folder = os.environ.get("FASTPETS_PETS")
    if not folder:
        pytest.skip("needs FASTPETS_PETS, a folder of real images")
    paths = sorted(str(path) for path in Path(folder).glob("*.jpg"))
    if not paths:
        pytest.skip(f"FASTPETS_PETS: {folder}, no .jpg file there, expected a folder of real images")
    return paths


@pytest.fixture(scope="module", autouse=True)  # not "session": tests of tests/ may follow in the same process
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps headers of temporary images out of the user's header cache, and ultralytics' settings out of their home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
        yield


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Adds processors, GPU and library versions to what pytest-benchmark records (processor, system, Python)."""
    machine_info["processors_usable"] = num_processors()
    machine_info["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine_info["versions"] = {"fastpets": fastpets.__version__, **_versions()}


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an extra, or the DALI wheel for the other CUDA version
    return found


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints images per second, one line per row: by the quantity that varies, or with ratios to reference rows."""
    session = getattr(config, "_benchmarksession", None)
    rows = [row for row in getattr(session, "benchmarks", []) if "images_per_sec" in row.extra_info]
    groups = dict.fromkeys(row.group for row in rows)
    for group in sorted(groups, key=lambda group: not group.startswith("cost")):  # the ratios last
        notes = [row.extra_info for row in rows if row.group == group]
        terminalreporter.section(f"{group}: images per second")
        for line in _growth_table(notes) if "x" in notes[0] else _ratio_table(notes):
            terminalreporter.write_line(line)


def _growth_table(notes: list[dict[str, Any]]) -> Iterator[str]:
    columns = sorted({note["x"] for note in notes})
    yield f"{'':20}" + "".join(f"{x:9}" for x in columns)
    for name in dict.fromkeys(note["row"] for note in notes):
        rates = {note["x"]: f"{note['images_per_sec']:.1f}" for note in notes if note["row"] == name}
        yield f"{name:20}" + "".join(f"{rates.get(x, ''):>9}" for x in columns)


def _ratio_table(notes: list[dict[str, Any]]) -> Iterator[str]:
    rates = {note["row"]: note["images_per_sec"] for note in notes}
    references = [name for name in ("decode-only", "torchvision", "fastai") if name in rates]
    yield f"{'':20}{'images/s':>9}" + "".join(f"{'to ' + name:>16}" for name in references)
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        yield f"{name:20}{rate:9.1f}" + "".join(f"{rate / rates[reference]:16.2f}" for reference in references)

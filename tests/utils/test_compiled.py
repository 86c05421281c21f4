"""Compiled code is kept on disk where that is possible, is never stale, and needs no disk."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PERMUTATION = "from fastpets.utils import philox; print(philox.permutation(8, purpose=1, seed=0).tolist())"
EXPECTED = "[3, 6, 4, 1, 5, 7, 2, 0]\n"  # as in test_philox.py


def output(script: str, cache: Path, root: Path = ROOT) -> str:
    """What a script prints that imports fastpets from `root`, and has `cache` for the user's cache folder."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, check=True, capture_output=True, text=True
    ).stdout


def compiled_files(cache: Path) -> dict[Path, int]:
    """The files of compiled code, with their times of modification."""
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb?")}


def test_a_second_process_loads_what_the_first_has_compiled(tmp_path: Path) -> None:
    assert output(PERMUTATION, tmp_path) == EXPECTED
    files = compiled_files(tmp_path)
    assert files
    assert output(PERMUTATION, tmp_path) == EXPECTED
    assert compiled_files(tmp_path) == files


def test_a_change_of_a_called_function_in_another_module_is_noticed(tmp_path: Path) -> None:
    for name in ("fastpets", "kernels", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    script = (
        "import numpy as np\nfrom fastpets.augment.preprocessing import Preprocessing\n"
        "from fastpets.augment.transforms import transforms\n"
        "print(transforms(np.array([0]), np.array([900]), np.array([900]), Preprocessing(size=(9, 9))).shrink.tolist())"
    )
    assert output(script, tmp_path / "cache", tmp_path) == "[[25, 25]]\n"
    geometry = tmp_path / "fastpets" / "augment" / "geometry.py"
    geometry.write_text(geometry.read_text().replace("max(min(factor, length), 1)", "max(min(factor, length), 1) + 1"))
    assert output(script, tmp_path / "cache", tmp_path) == "[[26, 26]]\n"


def test_without_a_cache_folder_it_compiles_in_each_process(tmp_path: Path) -> None:
    in_the_way = tmp_path / "a file"
    in_the_way.write_text("")
    assert output(PERMUTATION, in_the_way) == EXPECTED


@pytest.mark.parametrize("before", ["", "numba.config.CACHE_DIR = 'of the user'; "])
def test_a_cache_that_fails_later_is_no_error_and_settings_of_numba_stay(tmp_path: Path, before: str) -> None:
    script = (
        f"import numba, shutil; {before}kept = numba.config.CACHE_DIR; from fastpets.utils import philox; "
        f"assert numba.config.CACHE_DIR == kept; folder = {str(tmp_path / 'fastpets')!r}; "
        "shutil.rmtree(folder); open(folder, 'w').close(); "
    )
    assert output(script + PERMUTATION, tmp_path) == EXPECTED

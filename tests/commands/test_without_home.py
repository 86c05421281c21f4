"""A user without a name and a home, as in a container: commands work, with one warning."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

WARNING = "image headers are read again at each start, since they cannot be cached: "


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder of a user without a name, which others may read."""
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv, to become a user without a name")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.chown(folder, 54321, 54321)
        yield Path(folder)


@pytest.fixture
def as_unknown_user(work: Path) -> list[str]:
    """A command that runs another one as this user, who has no home, in this folder.

    The user may read all files, such as a Python below /root.
    """
    user = ["--reuid", "54321", "--regid", "54321", "--clear-groups"]
    reading = [f"--{kind}={what}" for kind in ("inh-caps", "ambient-caps") for what in ("-all,+dac_read_search",)]
    environment = ["env", "--unset=HOME", "--unset=XDG_CACHE_HOME", f"--chdir={work}"]
    return ["setpriv", *user, *reading, "--bounding-set=-all,+dac_read_search", *environment]


@pytest.mark.slow
def test_a_user_without_a_name_and_a_home_trains_and_predicts(
    drawn_classes: Path, as_unknown_user: list[str], work: Path
) -> None:
    root = Path(__file__).parents[2]
    python = [*as_unknown_user, f"PYTHONPATH={root}", sys.executable, "-m", "fastpets"]
    flags = ["--arch", "squeezenet1_1", "--weights", "none", "--size", "32", "--batch-size", "16", "--device", "cpu"]
    flags += ["--cache", "auto", "--out", "run"]
    for command in (
        ["train", "--data", str(drawn_classes), *flags, "--schedule", "unfrozen 1 1e-3"],
        ["predict", "run", str(drawn_classes), "--device", "cpu"],
        ["check", str(drawn_classes)],
    ):
        child = subprocess.run([*python, *command], capture_output=True, text=True, check=False)
        expected = f"warning: {WARNING}cache folder: this user has no home directory; set XDG_CACHE_HOME to a folder "
        expected += "that this process may write to\n"
        assert (child.stderr, child.returncode) == (expected, 0)
    assert {path.name for path in work.iterdir()} == {"run"}
    assert (work / "run" / "report.html").exists()

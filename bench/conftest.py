"""What the benchmarks share: the real pictures, and a table of ratios after the run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pictures() -> list[str]:
    """Paths of real pictures, named by FASTPETS_PETS."""
    folder = os.environ.get("FASTPETS_PETS")
    if not folder:
        pytest.skip("FASTPETS_PETS names no folder of real pictures")
    return sorted(str(path) for path in Path(folder).glob("*.jpg"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line a row: pictures per second, and its ratio to torchvision and fastai in the same run."""
    session = getattr(config, "_benchmarksession", None)
    rows = [row for row in getattr(session, "benchmarks", []) if "images_per_sec" in row.extra_info]
    for group in dict.fromkeys(row.group for row in rows):
        rates = {row.extra_info["row"]: row.extra_info["images_per_sec"] for row in rows if row.group == group}
        terminalreporter.section(f"{group}: pictures per second")
        for line in _table(rates):
            terminalreporter.write_line(line)


def _table(rates: dict[str, float]) -> Iterator[str]:
    references = [name for name in ("decode-only", "torchvision", "fastai") if name in rates]
    yield f"{'':14}{'images/s':>9}" + "".join(f"{'to ' + name:>16}" for name in references)
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        yield f"{name:14}{rate:9.1f}" + "".join(f"{rate / rates[reference]:16.2f}" for reference in references)

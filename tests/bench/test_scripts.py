"""The benchmark scripts reject arguments and results that would make their figures wrong."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import chapter, items, memory, rate
from bench.gpu import never_run


def run(main: Any, *arguments: object) -> int:
    """Runs a script's main function with arguments, and returns the exit status with which argparse rejects them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main()
    return exited.value.code


@pytest.mark.parametrize("few", [True, False])
def test_runs_on_few_and_on_all_images_do_not_share_a_file(
    tmp_path: Path, few: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTPETS_PETS", "images")
    monkeypatch.setenv("FASTPETS_WEIGHTS", "weights")
    out = tmp_path / "runs.json"
    out.write_text(json.dumps({"few": not few, "fastpets": {}, "fastai": {}}))
    assert run(chapter.main, "--out", out, *["--few"] * few) == 2
    assert f"not of runs {'with' if few else 'without'} --few; name another file" in capsys.readouterr().err


def test_too_few_items_to_measure_are_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(items.main, "--count", 1_000_000) == 2
    assert "--count: 1,000,000, expected more than 1,000,000" in capsys.readouterr().err


def test_the_peak_of_memory_includes_that_of_children() -> None:
    child = "import time; memory = bytearray(b'1') * 300_000_000; time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert 300 < memory.peak_mb([sys.executable, "-c", parent]) < 400


def test_memory_is_measured_with_real_images_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FASTPETS_PETS", raising=False)
    assert run(memory.main) == 2
    assert "needs FASTPETS_PETS" in capsys.readouterr().err


class EveryEpoch:
    """Stands in for pytest-benchmark's fixture."""

    enabled = False

    def pedantic(self, epoch: Any, *, setup: Any, rounds: int, warmup_rounds: int) -> None:
        for _ in range(warmup_rounds + rounds):
            setup()
            epoch()


class LosesAnImageOnce:
    """A loader whose second epoch lacks an image."""

    def __init__(self, paths: list[str], labels: list[int], num_workers: int) -> None:
        self.labels, self.epoch = labels, 0

    def __iter__(self) -> Iterator[tuple[None, list[int]]]:
        self.epoch += 1
        yield None, self.labels[self.epoch == 2 :]


def test_an_epoch_that_loses_an_image_fails_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rate.PEERS, "lossy", LosesAnImageOnce)
    benchmark: Any = EveryEpoch()
    with pytest.raises(AssertionError, match="lossy: 7 images in an epoch, expected 8"):
        rate.measure(benchmark, "lossy", ["image"], 8, 1)


def test_the_readme_lists_the_functions_with_lines_that_no_gpu_has_run() -> None:
    found = never_run.LIST.search(never_run.README.read_text())
    assert found is not None
    assert found[0].splitlines() == "\n".join(never_run.lines()).splitlines(), "python -m bench.gpu.never_run writes it"

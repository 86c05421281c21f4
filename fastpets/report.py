"""`fastpets report`: writes the page of a run again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from fastpets.errors import out_must_be_writable
from fastpets.flags import command_line
from fastpets.runs.files import check_run


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Predict the validation images of a run again, and write report.html into its folder."""

    run: Positional[Path]
    """The run folder, or a folder by a learner's `export`."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def report(config: ReportConfig) -> int:
    """Writes the page and prints its path."""
    check_run("run", config.run)
    from fastpets.analysis.interpretation import Interpretation
    from fastpets.analysis.report import write_report
    from fastpets.runs.build import limit_threads
    from fastpets.runs.config import OF_ONE_RUN, read_config, read_settings
    from fastpets.runs.folder import check_writable

    check_writable(config.run)
    limit_threads(None)
    interpretation = Interpretation.from_run(config.run, config.device)
    command = ""
    if read_settings(config.run):  # those of fastpets train
        command = command_line("train", read_config(config.run), OF_ONE_RUN)
    with out_must_be_writable(config.run):
        print(f"report: {write_report(config.run, interpretation, command)}")
    return 0


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["report", *sys.argv[1:]]))

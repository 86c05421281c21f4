"""Runs the tests marked `gpu` of one file in a process of its own, and reports what became of each.

That process has this module as a pytest plugin, which writes a line of JSON when a test starts and when it ends. So if
it crashes, one file's remaining tests are lost, and the test in which it crashed is known.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from bench.gpu.part import Part

EVENTS = "FASTPETS_TEST_EVENTS"  # the environment variable with the file of these lines
TO_REPORT = 3  # seconds kept for reporting when time is up


def main() -> int:
    part = Part(__doc__)
    events = part.out / f"{part.name}.events"
    events.unlink(missing_ok=True)
    chosen = ["-m", "not gpu", "-k", "not register"] if part.dry_run else ["-m", "gpu"]  # compiling is slow
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "bench.gpu.correctness", *chosen]
    try:
        status = subprocess.run(
            [*command, part.arguments.file],
            env=os.environ | {EVENTS: str(events)},
            timeout=part.seconds_left - TO_REPORT,
        ).returncode
        ending = f"crashed with signal {-status}" if status < 0 else ""
    except subprocess.TimeoutExpired:
        status, ending = 1, "out of time"
    report(part, [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else [], ending)
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else abs(status)


def report(part: Part, lines: list[dict[str, Any]], ending: str) -> None:
    """Adds the results of a file's tests; `ending` says how its process ended, if not by itself."""
    outcomes = {line["test"]: line["outcome"] for line in lines}  # the last one of each counts
    counts = Counter(outcomes.values())
    found = " / ".join(str(counts[outcome]) for outcome in ("passed", "failed", "skipped"))
    part.add(str(part.arguments.file), found, "passed / failed / skipped", **outcomes)
    for test, outcome in outcomes.items():
        if outcome in ("failed", "running"):
            part.add(f"  {ending or 'unfinished'} in" if outcome == "running" else "  failed", test.partition("::")[2])
    if ending and "running" not in counts:
        part.add(f"  {ending}", "outside of any test")
    for reason in sorted({line["reason"] for line in lines if line.get("reason")}):
        part.add("  skipped", reason)
    if worst := [step for line in lines for name, step in line.get("properties", []) if name == "worst_step"]:
        part.add("  decoder, GPU against CPU: worst step of 255", f"{max(worst):.0f}", "mean below 1")


def write(**event: Any) -> None:
    with open(os.environ[EVENTS], "a") as file:
        file.write(json.dumps(event) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    write(test=nodeid, outcome="running")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else None
        write(test=report.nodeid, outcome=report.outcome, reason=reason, properties=report.user_properties)


if __name__ == "__main__":
    sys.exit(main())

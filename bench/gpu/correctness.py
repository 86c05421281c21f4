"""Runs the tests marked `gpu`, and reports the largest difference of the GPU's decoder from the CPU's."""

import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree

from bench.gpu.part import Part

TESTS = [
    "tests/loading/test_gpu.py",
    "tests/training/test_gpu.py",
    "tests/kernels/test_warp_triton.py",
]  # all modules with such tests


def main() -> int:
    part = Part(__doc__)
    report = part.out / "correctness.xml"
    chosen = ["-m", "not gpu", "-k", "not register"] if part.dry_run else ["-m", "gpu"]  # compiling is slow
    status = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--tb=short", *chosen, f"--junitxml={report}", *TESTS]
    ).returncode
    cases = [(case, outcome(case)) for case in ElementTree.parse(report).iter("testcase")]
    worst = [float(found.get("value", 0)) for case, _ in cases for found in case.iter("property")]
    hardware = [how for case, how in cases if "hardware" in case.get("name", "")]
    part.add(
        outcomes=Counter(how for _, how in cases),
        failed=[case.get("name") for case, how in cases if how == "failed"],
        worst_decoding_step=max(worst, default=None),
        hardware_decoder_passed=bool(hardware) and set(hardware) == {"passed"},
    )
    return status


def outcome(case: ElementTree.Element) -> str:
    decoders = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    return next((decoders[child.tag] for child in case if child.tag in decoders), "passed")


if __name__ == "__main__":
    sys.exit(main())

"""Prints a summary of the parts' figures, beside the targets for one H100 with 16 cores."""

import argparse
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fastpets.utils.system import num_processors

Row = tuple[str, str, str]  # name, figure, target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out
    found = {}
    for name in ("correctness", "kernel", "loading", "chapter", "training"):
        file = folder / f"{name}.json"
        found[name] = json.loads(file.read_text()) if file.exists() else None
    machine = {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "processors": num_processors(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    (folder / "all.json").write_text(json.dumps({"machine": machine, **found}, indent=1))
    print(*(f"{name} {value}" for name, value in machine.items()), sep=", ")
    if any(part and part["dry_run"] for part in found.values()):
        print("A dry run on a CPU, at a small scale: it completed, and its figures mean nothing.")
    print(f"{'':50}{'found':>24}  target")
    for name, figure, target in rows(found):
        print(f"{name:50}{figure:>24}  {target}")


def rows(found: dict[str, Any]) -> Iterator[Row]:
    for name, part in found.items():
        if part is None:
            yield name, "nothing: see its log", ""
        else:
            yield from ROWS[name](part)


def correctness(part: dict[str, Any]) -> Iterator[Row]:
    outcomes = part["outcomes"]
    yield (
        "tests passed / failed / skipped",
        " / ".join(str(outcomes.get(how, 0)) for how in ("passed", "failed", "skipped")),
        "none failed",
    )
    yield from (("  failed", name, "") for name in part["failed"])
    yield "decoder, GPU against CPU: worst step of 255", str(part["worst_decoding_step"]), "mean below 1"
    yield "streams, hardware decoder on", "passed" if part["hardware_decoder_passed"] else "not passed", "passed"


def kernel(part: dict[str, Any]) -> Iterator[Row]:
    yield "copy, bytes read and written", f"{part['copy_gb_per_s']:.0f} GB/s", ""
    for name, case in part.items():
        if isinstance(case, dict):
            found = f"{case['us']:.0f} us, {case['share_of_copy']:.0%}"
            yield f"kernel, {name}", found, "40% of the copy" if case["k"] == 1 else ""


def loading(part: dict[str, Any]) -> Iterator[Row]:
    for row, name, target in (
        ("loader, uncached", "uncached", "8,000"),
        ("loader, cached on the device", "cached_device", "100,000"),
        ("loader, cached on the host", "cached_host", ""),
        ("torchvision's DataLoader", "torchvision", ""),
        ("fastai", "fastai", ""),
    ):
        if (found := part.get(name)) is None or isinstance(found, str):
            yield row, found or "no time left", ""
            continue
        yield row, f"{found['images_per_sec']:,.0f} images/s", target
        if name.startswith("cached"):
            yield (
                f"  the host's work for {found['batch']:.0f} images",
                f"{found['host_ms']:.2f} ms",
                target and "1.2 ms for 256",
            )
        if name == "uncached":
            yield "  processors busy", f"{found['processors_busy']:.1f}", ""
    if best := part.get("best"):
        yield "  uncached, best of the sweep", f"{best['images_per_sec']:,.0f} images/s", ""
        yield from (
            (f"    {name}", str(value), "make it the default") for name, value in best.items() if name in SETTINGS
        )


SETTINGS = ("num_workers", "batch_size", "hw_decoder_load", "decode_ahead")


def chapter(part: dict[str, Any]) -> Iterator[Row]:
    yield "fastai's chapter, whole process", f"{part['seconds']:.1f} s", "30 s"
    yield "  startup and shutdown", f"{part['seconds_beside_epochs']:.1f} s", "8 s"
    yield "  the last epoch", f"{part['seconds_per_epoch'][-1]:.2f} s", ""


def training(part: dict[str, Any]) -> Iterator[Row]:
    for name, rates in part.items():
        if isinstance(rates, str):
            yield name, rates, ""
        if isinstance(rates, dict):
            yield f"{name}, batches in memory", f"{rates['in memory']:,.0f} images/s", ""
            for source, target in (("cached", "97%"), ("uncached", "90%")):
                yield f"  {source}", f"{rates[source] / rates['in memory']:.0%}", target


ROWS = {"correctness": correctness, "kernel": kernel, "loading": loading, "chapter": chapter, "training": training}


if __name__ == "__main__":
    main()

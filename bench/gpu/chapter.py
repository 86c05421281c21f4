"""Times the last run of fastai's chapter on pet breeds, as a process.

It trains a ResNet-50 in mixed precision for 3 frozen and 6 unfrozen epochs on 7,390 images. The weights are random,
read from a file as pretrained weights are, and the images are 370, each linked under twenty names. So the times are
those of the chapter's run, and the error rates are not. If the time is up before, the run is stopped; its complete
epochs were reported by then.
"""

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file

from bench.gpu.part import Part, linked_images

TO_STOP = 10  # seconds that a stopped run may take to write its checkpoint


def main() -> int:
    part = Part(__doc__)
    arch, freeze_epochs, epochs, size = ("squeezenet1_1", 1, 1, 32) if part.dry_run else ("resnet50", 3, 6, 224)
    count = 160 if part.dry_run else 7390
    weights, run = part.out / "weights.safetensors", part.out / "chapter"
    shutil.rmtree(run, ignore_errors=True)
    torch.manual_seed(0)
    save_file(torchvision.models.get_model(arch).state_dict(), weights)
    with linked_images(count) as folder:
        command = [sys.executable, "-m", "fastpets.train", "--data", folder, "--arch", arch, "--weights", weights]
        command += ["--amp", "--size", size, "--freeze-epochs", freeze_epochs, "--epochs", epochs, "--cache", "auto"]
        command += ["--device", part.device, "--out", run]
        started = time.perf_counter()
        child = subprocess.Popen(list(map(str, command)))
        rows: list[dict[str, str]] = []
        while child.poll() is None and part.seconds_left > TO_STOP:
            time.sleep(0.1)
            rows = add_new_epochs(part, run, rows, freeze_epochs + epochs)
        seconds = time.perf_counter() - started
        was_cut_off = child.poll() is None
        if was_cut_off:
            child.send_signal(signal.SIGTERM)
        status = child.wait()
        rows = add_new_epochs(part, run, rows, freeze_epochs + epochs)
    weights.unlink()
    if was_cut_off:
        part.add("the chapter's run", f"stopped after {seconds:.0f} s", f"{len(rows)} complete epochs")
    elif status == 0:
        startup = seconds - sum(float(row["seconds"]) for row in rows)
        part.add("the chapter's run, whole process", f"{seconds:.1f} s", "30 s", seconds=seconds)
        part.add("  startup and shutdown", f"{startup:.1f} s", "8 s", seconds=startup)
        shutil.rmtree(run)
    return 0 if was_cut_off else status


def add_new_epochs(part: Part, run: Path, known: list[dict[str, str]], num_epochs: int) -> list[dict[str, str]]:
    """Adds a result for each epoch of a run that is not among the known ones, and returns all."""
    if not (run / "metrics.csv").exists():
        return known
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows[len(known) :], start=len(known) + 1):
        found = f"{float(row['seconds']):.2f} s"
        waiting = f"{float(row['input_share']):.0%} of it waiting for images"
        part.add(f"the chapter's run, epoch {number} of {num_epochs}", found, waiting, **row)
    return rows


if __name__ == "__main__":
    sys.exit(main())

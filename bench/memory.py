"""Peak memory of training with this project's loader, and with a torchvision DataLoader.

    FASTPETS_PETS=... python -m bench.memory

Each row trains a ResNet-18 on batches of 224 px in a process of its own, with as many threads, or worker processes,
to load. Its memory is the proportional set size (PSS), in which pages that processes share count once, of the process
and all its children. It is read every 200 ms; the result is the peak.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROWS = ("torchvision", "fastpets")
INTERVAL = 0.2  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="steps of training")
    parser.add_argument("--batch-size", type=int, default=64, help="images per batch")
    parser.add_argument("--num-workers", type=int, default=2, help="threads or worker processes, and torch's threads")
    parser.add_argument("--row", choices=ROWS, help="train with this row's loader here, without measuring")
    arguments = parser.parse_args()
    if not os.environ.get("FASTPETS_PETS"):
        parser.error("needs FASTPETS_PETS, a folder of real images")
    if arguments.row:
        train(arguments.row, arguments.steps, arguments.batch_size, arguments.num_workers)
        return
    peaks = {}
    for row in ROWS:
        peaks[row] = peak_mb([sys.executable, "-m", "bench.memory", *sys.argv[1:], "--row", row])
        print(f"{row:12}{peaks[row]:7,.0f} MB{peaks[row] / peaks[ROWS[0]]:7.2f} to {ROWS[0]}", flush=True)


def train(row: str, num_steps: int, batch_size: int, num_workers: int) -> None:
    import torch
    from torchvision.models import resnet18

    from bench.peers import PEERS

    torch.set_num_threads(num_workers)
    files = sorted(map(str, Path(os.environ["FASTPETS_PETS"]).glob("*.jpg")))
    count = num_steps * batch_size
    paths = (files * (count // len(files) + 1))[:count]
    model = resnet18(num_classes=37)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    loader = PEERS[row](paths, [number % 37 for number in range(count)], num_workers, batch_size=batch_size)
    for images, labels in loader:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()


def peak_mb(command: list[str]) -> float:
    """Runs a command and returns the peak of its memory. Raises CalledProcessError if it fails."""
    peak = 0
    with subprocess.Popen(command) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, pss(process))
            time.sleep(INTERVAL)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return peak / 1e6


def pss(process: psutil.Process) -> int:
    """The bytes of a process and its children; 0 for one that has ended meanwhile."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += each.memory_full_info().pss
    return total


if __name__ == "__main__":
    main()

"""Times the last run of fastai's chapter on pet breeds, as a process.

It trains a ResNet-50 in mixed precision for 3 frozen and 6 unfrozen epochs on 7,390 images. The weights are random,
read from a file as pretrained weights are, and the images are 370, each linked under twenty names. So the times are
those of the chapter's run, and the error rates are not.
"""

import csv
import shutil
import subprocess
import sys
import time

import torch
import torchvision
from safetensors.torch import save_file

from bench.gpu.part import Part, linked_images


def main() -> int:
    part = Part(__doc__)
    arch, count, size, freeze_epochs, epochs = "resnet50", 7390, 224, 3, 6
    if part.dry_run:
        arch, count, size, freeze_epochs, epochs = "resnet18", 160, 32, 1, 1
    weights, run = part.out / "weights.safetensors", part.out / "chapter"
    shutil.rmtree(run, ignore_errors=True)
    torch.manual_seed(0)
    save_file(torchvision.models.get_model(arch).state_dict(), weights)
    with linked_images(count) as folder:
        command = [sys.executable, "-m", "fastpets.train", "--data", folder, "--arch", arch, "--weights", weights]
        command += ["--amp", "--size", size, "--freeze-epochs", freeze_epochs, "--epochs", epochs, "--cache", "auto"]
        started = time.perf_counter()
        status = subprocess.run([*map(str, command), "--device", str(part.device), "--out", str(run)]).returncode
        seconds = time.perf_counter() - started
    weights.unlink()
    if status:
        return status
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    per_epoch = [float(row["seconds"]) for row in rows]
    part.add(
        seconds=seconds,
        seconds_beside_epochs=seconds - sum(per_epoch),  # startup and shutdown
        seconds_per_epoch=per_epoch,
        input_share=[float(row["input_share"]) for row in rows],
    )
    shutil.rmtree(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())

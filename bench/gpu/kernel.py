"""Times a kernel launch, and compares its bytes per second with those of a plain copy."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bench.gpu.part import Part
from fastpets import kernels
from fastpets.augment import lookup_tables
from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import Preprocessing
from fastpets.augment.transforms import Transforms, transforms

SETS = 8  # of images, used in turn: a single one would stay in the GPU's cache
CASES = {  # the images' height and width, the output's side, its type, and `supersample`
    "375 x 500 to 224, float16": ((375, 500), 224, torch.float16, 1),
    "375 x 500 to 224, float32": ((375, 500), 224, torch.float32, 1),
    "375 x 500 to 224, float16, 2 x 2 samples": ((375, 500), 224, torch.float16, 2),
    "256 x 256 to 224, float16": ((256, 256), 224, torch.float16, 1),
}


def main() -> None:
    part = Part(__doc__)
    batch_size, count = (2, 3) if part.dry_run else (256, 50)
    copied = 2**20 if part.dry_run else 2**30
    source = torch.randint(0, 255, (copied,), dtype=torch.uint8, device=part.device)
    target = torch.empty_like(source)
    bandwidth = 2 * copied / median_ms(part, lambda: target.copy_(source), count) / 1e6  # GB/s, read and written
    part.add("copy, bytes read and written", f"{bandwidth:.0f} GB/s", gb_per_s=bandwidth)
    for name, (source_size, side, dtype, supersample) in CASES.items():
        batch = make_transforms(batch_size, source_size, side, supersample)
        sets = [
            [torch.randint(0, 255, (*source_size, 3), dtype=torch.uint8, device=part.device) for _ in range(batch_size)]
            for _ in range(SETS)
        ]
        geometry = [torch.from_numpy(values) for values in batch[:3]]
        luts = torch.from_numpy(lookup_tables.luts(batch.adjustments, Preprocessing().normalization)).to(dtype)
        on_device = [*geometry, luts.to(part.device)]
        out = torch.empty(batch_size, side, side, 3, dtype=dtype, device=part.device)
        milliseconds = median_ms(part, launcher(sets, on_device, out), count) / SETS
        num_bytes = bytes_moved(batch, source_size, side, dtype)
        share = num_bytes / milliseconds / 1e6 / bandwidth
        once = batch.samples.max() == 1
        part.add(
            f"kernel, {name}",
            f"{1000 * milliseconds:.0f} us, {share:.0%}",
            "40% of the copy" if once else "",
            us=1000 * milliseconds,
            mb=num_bytes / 1e6,
            share_of_copy=share,
            k=float(np.mean(batch.samples)),
        )


def median_ms(part: Part, call: Callable[[], Any], count: int) -> float:
    """Returns the median device time of `count` calls in ms, after three calls of warm-up."""
    times = []
    for _ in range(3):
        call()
    for _ in range(count):
        if part.dry_run:
            started = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - started))
        else:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            call()
            after.record()
            after.synchronize()
            times.append(before.elapsed_time(after))
    return sorted(times)[count // 2]


def launcher(
    sets: Sequence[list[torch.Tensor]], arguments: Sequence[torch.Tensor], out: torch.Tensor
) -> Callable[[], Any]:
    """A function that launches the kernel on every set; its arguments are on the device already."""
    if not out.is_cuda:
        return lambda: [kernels.warp(images, *arguments, out) for images in sets]
    from fastpets.kernels import warp_triton

    *geometry, luts = arguments
    packed = [warp_triton.pack_arguments(images, *geometry).to(out.device) for images in sets]
    return lambda: [warp_triton.launch(rows, luts, out, "reflect") for rows in packed]


def make_transforms(batch_size: int, source_size: tuple[int, int], side: int, supersample: int) -> Transforms:
    """Transforms of a batch with the default augmentation, fastai's."""
    heights, widths = np.repeat(np.array([source_size]), batch_size, axis=0).T
    preprocessing = Preprocessing(size=(side, side), supersample=supersample)
    return transforms(np.arange(batch_size), heights, widths, preprocessing, augment=Augment())


def bytes_moved(batch: Transforms, source_size: tuple[int, int], side: int, dtype: torch.dtype) -> int:
    """The fewest bytes that a batch moves: each output value, each source pixel in the output's region, the LUTs."""
    height, width = source_size
    corners = batch.source_from_output @ np.array([[0, side, side, 0], [0, 0, side, side], [1, 1, 1, 1.0]])
    x, y = corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2]
    area = abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2  # the shoelace formula
    read = 3 * np.minimum(area, height * width).sum()
    written = math.prod((len(area), side, side, 3)) * dtype.itemsize
    return int(read + written + len(area) * 768 * dtype.itemsize)


if __name__ == "__main__":
    main()

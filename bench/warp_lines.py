"""Lines of 128 bytes that a warp of the Triton kernel touches, by the shape of its pixels: simulated addresses, no GPU.

    FASTPETS_PETS=... python -m bench.warp_lines

A load of a warp takes as many cycles as it touches lines. Each bilinear sample has 12 loads: 2 x 2 taps of 3 channels.
Training's random transforms of 64 images.
"""

import os
from pathlib import Path

import numpy as np

from fastpets import Loader
from fastpets.loading.planning import Planner

SHAPES = [(16, 2), (8, 4), (4, 8), (32, 1)]  # columns and rows of the 32 pixels of a warp
NUM_IMAGES, SIZE = 64, 224


def distinct(addresses: np.ndarray, unit: int) -> np.ndarray:
    """The number of different units of bytes among the addresses (..., n) of a load: (...)."""
    units = np.sort(addresses // unit, axis=-1)
    return 1 + (np.diff(units, axis=-1) != 0).sum(-1)


def by_warp(values: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Values (..., H, W) of the pixels as (..., warps, 32)."""
    *rest, height, width = values.shape
    blocks = values.reshape(*rest, height // rows, rows, width // columns, columns)
    return blocks.swapaxes(-3, -2).reshape(*rest, -1, rows * columns)


def first_taps(matrix: np.ndarray, k: int, spread: float, height: int, width: int) -> np.ndarray:
    """The byte of each sample's first tap in an image of `height` x `width`, as in the kernel: (k * k, SIZE, SIZE)."""
    at = 0.5 + spread * (np.arange(k) - (k - 1) / 2) / k
    row, column = np.mgrid[:SIZE, :SIZE]
    taps = []
    for v, u in np.ndindex(k, k):
        point = np.stack([column + at[u], row + at[v], np.ones_like(row)], axis=-1) @ matrix.T
        x, y = point[..., 0] / point[..., 2], point[..., 1] / point[..., 2]
        x, y = (np.abs(each - 2 * size * np.rint(each / (2 * size))) for each, size in ((x, width), (y, height)))
        left, top = (
            np.clip(np.floor(each - 0.5), 0, size - 2).astype(np.int64) for each, size in ((x, width), (y, height))
        )
        taps.append(3 * (top * width + left))
    return np.stack(taps)


def main() -> None:
    loader = Loader(Path(os.environ["FASTPETS_PETS"]), size=SIZE, augment=True, device="cpu", label_from="none")
    planner = Planner(
        headers=loader.headers, labels=loader.dataset.labels, preprocessing=loader.preprocessing,
        shrink_for=(SIZE, SIZE), augment=loader.augment, seed=0, epoch=0,
    )  # fmt: skip
    ids = np.arange(0, len(loader.dataset), -(-len(loader.dataset) // NUM_IMAGES))
    transforms = planner.transforms(ids, np.zeros_like(ids))
    lines: dict[tuple[int, int], list[np.ndarray]] = {shape: [] for shape in SHAPES}
    sectors: dict[tuple[int, int], list[np.ndarray]] = {shape: [] for shape in SHAPES}
    footprints: dict[tuple[int, int], list[np.ndarray]] = {shape: [] for shape in SHAPES}
    start = 0
    for i, matrix, k, spread, by in zip(ids, *transforms[:3], transforms.shrink, strict=True):
        height, width = (
            length // factor for length, factor in zip(loader.headers.stored_size(int(i)), by, strict=True)
        )
        first = start + first_taps(matrix.astype(np.float64), int(k), float(spread), height, width)
        start += 3 * height * width
        for shape in SHAPES:
            lanes = by_warp(first, *shape)
            taps = np.stack([lanes + offset for offset in (0, 1, 2, 3, 4, 5)])
            taps = np.concatenate([taps, taps + 3 * width])
            lines[shape].append(distinct(taps, 128).ravel())
            sectors[shape].append(distinct(taps, 32).ravel())
            footprints[shape].append(distinct(np.moveaxis(taps, 0, -2).reshape(*lanes.shape[:-1], -1), 128).ravel())
    column, row = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    print(
        f"{len(ids)} images, {SIZE} px; with 1, 2, ... samples per axis: {np.bincount(transforms.samples)[1:].tolist()}"
    )
    print("warp     lines/load  90%  sectors/load  lines/sample  lines/store (float16)")
    for shape in SHAPES:
        loads = np.concatenate(lines[shape])
        stored = distinct(by_warp(2 * 3 * (row * SIZE + column), *shape), 128)
        print(
            f"{shape[0]:2} x {shape[1]:<2}  {loads.mean():9.2f} {np.quantile(loads, 0.9):5.0f}"
            f"{np.concatenate(sectors[shape]).mean():13.2f} {np.concatenate(footprints[shape]).mean():13.2f}"
            f"{stored.mean():13.2f}"
        )


if __name__ == "__main__":
    main()

"""Time and memory for datasets of millions of images: reading a table, cached headers, the order of an epoch.

    python -m bench.items --count 10000000

The files do not exist: their headers are written to a temporary header cache. COUNT must exceed headers.MAX_STAMPED,
since in smaller datasets the modification times of the files are compared.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000_000, help="number of images, more than a million")
    count = parser.parse_args().count
    from fastpets.data.headers import MAX_STAMPED

    if count <= MAX_STAMPED:
        parser.error(
            f"--count: {count:,}, expected more than {MAX_STAMPED:,}, as fewer files are looked up on the disk"
        )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        measure(Path(folder), count)


def measure(folder: Path, count: int) -> None:
    from fastpets import Loader
    from fastpets.data import headers
    from fastpets.data.sources import from_csv

    table = folder / "table.csv"
    with open(table, "w") as file:
        file.write("file,label\n")
        file.writelines(
            f"folder_{i % 1000:04}/the_name_of_an_image_{i:09}.jpg,class_{i % 1000}\n" for i in range(count)
        )
    base_mb, started = resident_mb(), time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        print(f"{name:32}{time.perf_counter() - started:7.1f} s{resident_mb() - base_mb:8.0f} MB more than before")
        started = time.perf_counter()

    dataset = from_csv(table)
    lap("table read")
    rows = np.zeros(count, headers.ROW)
    rows["key"] = dataset.paths.hashes()
    rows["decoder"], rows["height"], rows["width"] = headers.DALI, 375, 500
    headers._save(dataset.root, rows)
    del rows
    started = time.perf_counter()
    loader = Loader(dataset, augment=True, device="cpu")
    lap("loader made, headers cached")
    loader.sampler.start_epoch()
    lap("order of an epoch")
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, {base_mb:.0f} of them imports")


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()

"""Fuzzes the check and a Loader with thousands of damaged files: `python -m tests.fuzz --files 100000`.

Each JPEG, PNG, GIF, WebP or BMP is damaged in one to three ways: bits are flipped, bytes removed, inserted or replaced,
two files spliced. Every file must be loaded or listed as bad, and no process may crash or hang. The files of a process
that did are kept in the folder --keep.

Damaged tables and tar shards (--tables, --shards) go through `tests/fuzz_readers.py`.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.images import drawing, encode

CHUNK = 2000  # files on the disk at a time
TIMEOUT_S = 900  # for a chunk, which takes a tenth of that
GOOD = 64  # images in a batch, among which three are damaged

LOAD = """
import sys, warnings
import numpy as np
from fastpets import Loader
from fastpets.data.sources import from_folder
warnings.simplefilter("ignore")
batch_size = int(sys.argv[2])
dataset = from_folder(sys.argv[1], label_from="none")
settings = {"augment": True, "drop_last": False, "device": "cpu", "on_bad_file": "skip"}
loader = Loader(dataset, size=16, batch_size=batch_size, **settings)
delivered = [int(i) for batch in loader for i in batch.ids]
assert len(set(delivered)) == len(delivered)
listed = {dataset.paths[i] for i in delivered} ^ set(dataset.paths)
assert listed == set(loader.bad_files), (len(listed), len(loader.bad_files))
good = [i for i, path in enumerate(dataset.paths) if "good" in path]
assert set(good) <= set(delivered)
print(len(dataset) - len(good), len(loader.bad_files))
"""


def originals() -> list[bytes]:
    """Small files of all formats and kinds: grey, palette, alpha, progressive, lossless, with EXIF."""
    image, exif = drawing(45, 60), Image.Exif()
    exif[0x0112] = 6
    return [
        encode(image, "JPEG"),
        encode(image, "JPEG", progressive=True, exif=exif),
        encode(image.convert("L"), "JPEG", quality=95),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "PNG"),
        encode(image.convert("P"), "PNG", exif=exif),
        encode(image.convert("RGBA"), "PNG"),
        encode(image, "GIF"),
        encode(image, "WEBP"),
        encode(image, "WEBP", lossless=True),
        encode(image, "BMP"),
    ]


def damaged(random: np.random.Generator, files: list[bytes]) -> bytes:
    """One of the files, damaged."""
    content = bytearray(files[random.integers(len(files))])
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(len(content) + 1))
        match random.integers(5):
            case 0:  # bits flipped, often in the header
                for at in random.integers(0, random.choice([64, max(len(content), 1)]), random.integers(1, 9)):
                    if at < len(content):
                        content[at] ^= 1 << random.integers(8)
            case 1:  # truncated
                del content[place:]
            case 2:  # spliced
                other = files[random.integers(len(files))]
                content[place:] = other[int(random.integers(len(other))) :]
            case 3:  # two or four bytes replaced, such as a length
                wrong = random.choice([0, 1, 0x7F, 0xFF]).astype(np.uint8).tobytes() * int(random.choice([2, 4]))
                content[place : place + len(wrong)] = wrong
            case 4:  # bytes inserted
                content[place:place] = random.bytes(int(random.integers(1, 200)))
    return bytes(content)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)


def through_check(folder: Path) -> int:
    """Checks a folder and returns the number of bad files. Raises AssertionError unless all files are counted."""
    out = folder.parent / "bad_files.csv"
    out.unlink(missing_ok=True)
    child = run(sys.executable, "-m", "fastpets.check", str(folder), "--out", str(out))
    assert child.returncode in (0, 1), f"status {child.returncode}: {child.stderr[-2000:]}"
    num_files, num_bad = len(os.listdir(folder)), 0
    if out.exists():
        with open(out, newline="", encoding="utf-8") as file:
            num_bad = len({row["file"] for row in csv.DictReader(file)})
    assert f"{num_files} files: {num_files - num_bad} good, {num_bad} bad" in child.stdout, child.stderr[-2000:]
    return num_bad


def through_loader(folder: Path, batch_size: int) -> int:
    """Loads a folder and returns the number of bad files. Raises AssertionError unless all good images arrive."""
    child = run(sys.executable, "-c", LOAD, str(folder), str(batch_size))
    assert child.returncode == 0, f"status {child.returncode}: {child.stderr[-2000:]}"
    return int(child.stdout.split()[1])


def chunks(total: int, size: int) -> Iterator[int]:
    yield from [size] * (total // size) + [total % size] * (total % size > 0)


def fuzz_check(work: Path, num_files: int, seed: int) -> int:
    """Checks damaged files, CHUNK at a time, and returns how many were bad."""
    random, files, bad = np.random.default_rng(seed), originals(), 0
    for number, count in enumerate(chunks(num_files, CHUNK)):
        folder = work / f"check-{number}"
        folder.mkdir()
        for i in range(count):
            (folder / f"{i:05}.jpg").write_bytes(damaged(random, files))
        bad += through_check(folder)
        shutil.rmtree(folder)
        print(f"check: {number * CHUNK + count} of {num_files} files, {bad} bad", flush=True)
    return bad


def fuzz_loader(work: Path, num_files: int, seed: int) -> int:
    """Loads batches with three damaged files each, and returns how many of these were bad."""
    random, files, bad = np.random.default_rng(seed), originals(), 0
    for number, count in enumerate(chunks(num_files, CHUNK // 2)):
        folder = work / f"loader-{number}"
        folder.mkdir()
        for i in range(count):
            (folder / f"{i:05}_damaged.jpg").write_bytes(damaged(random, files))
        for i in range(count * (GOOD - 3) // 3 + 1):
            (folder / f"{i * 3 // (GOOD - 3):05}_good_{i}.jpg").write_bytes(files[i % 2])
        bad += through_loader(folder, GOOD)
        shutil.rmtree(folder)
        print(f"loader: {number * (CHUNK // 2) + count} of {num_files} files, {bad} bad", flush=True)
    return bad


def fuzz_strays(work: Path, times: int) -> None:
    """Loads `times` batches of 64 and of 256 images, each with a GIF, a text and an empty file."""
    files = originals()
    for batch_size in (64, 256):
        folder = work / f"strays-{batch_size}"
        folder.mkdir()
        for number in range(times):
            for i in range(batch_size - 3):
                (folder / f"{number:03}_{i:03}_good.jpg").write_bytes(files[i % 2])
            for kind, content in (("gif_good", files[7]), ("text", b"no image"), ("empty", b"")):
                (folder / f"{number:03}_{kind}.jpg").write_bytes(content)
        bad = through_loader(folder, batch_size)
        assert bad == 2 * times, f"{bad} bad files, expected {2 * times}"
        shutil.rmtree(folder)
        print(f"a GIF, a text and an empty file, {times} times in batches of {batch_size}: as expected", flush=True)


def fuzz_readers(work: Path, kind: str, num_files: int, seed: int) -> int:
    """Reads damaged tables or shards, CHUNK at a time in another process, and returns how many gave an error."""
    rejected = 0
    for number, count in enumerate(chunks(num_files, CHUNK)):
        code = f"from tests import fuzz_readers; print(fuzz_readers.check('{kind}', {count}, {seed + number}))"
        child = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=work, check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert child.returncode == 0, f"{kind}, status {child.returncode}: {child.stderr[-4000:]}"
        rejected += int(child.stdout)
        print(f"{kind}: {number * CHUNK + count} of {num_files}, {rejected} rejected", flush=True)
    return rejected


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="through the check")
    parser.add_argument("--loader-files", type=int, default=300, help="through the loader")
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--stray-batches", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failed"))
    arguments = parser.parse_args()
    work, started = Path(tempfile.mkdtemp()), time.monotonic()
    try:
        bad = (
            fuzz_check(work, arguments.files, arguments.seed),
            fuzz_loader(work, arguments.loader_files, arguments.seed + 1),
        )
        fuzz_strays(work, arguments.stray_batches)
        rejected = {
            kind: fuzz_readers(work, kind, getattr(arguments, kind), arguments.seed + 10_000)
            for kind in ("tables", "shards")
        }
    except (AssertionError, subprocess.TimeoutExpired) as failure:
        shutil.copytree(work, arguments.keep, dirs_exist_ok=True)
        print(f"failed: {failure}\nthe files are in {arguments.keep}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work)
    counts = f"{arguments.files} files through the check, {bad[0]} bad; {arguments.loader_files} in batches, {bad[1]}"
    readers = "; ".join(f"{getattr(arguments, kind)} {kind}, {count} rejected" for kind, count in rejected.items())
    took = f"{time.monotonic() - started:.0f} s"
    print(f"{counts} bad; {readers}; {took}; all loaded or listed, or read or named, no process crashed or hung")
    return 0


if __name__ == "__main__":
    sys.exit(main())

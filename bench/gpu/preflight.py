"""Describes the machine, checks what the other parts need of it, and chooses their scale.

Each check is by itself: a row says what is missing and what to do about it, and the next one follows.
"""

import io
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.gpu.part import Part, Scale, photos
from bench.stub_cuda import compiler
from fastpets import kernels, pipelines
from fastpets.kernels import reference
from fastpets.utils.system import CPU_INFO, free_memory, num_processors
from tests.devices import num_jpeg_engines
from tests.images import drawing, encode

GIB = 2**30


def main() -> int:
    part = Part(__doc__)
    if not part.dry_run:
        part.choose(Scale())
    failed = 0
    for name, check in CHECKS.items():
        try:
            part.add(name, *check(part))
        except (Exception, SystemExit) as error:  # of any library; the others are checked in any case
            failed += 1
            part.add(name, "failed", " ".join(str(error).split()) or type(error).__name__)
            print(repr(error))
    print(f"{failed} checks failed")
    return int(failed > 0)


def gpu(part: Part) -> tuple[str, str]:
    if part.dry_run:
        return "none: a dry run", "its figures mean nothing"
    properties = torch.cuda.get_device_properties(part.device)
    count = torch.cuda.device_count()
    return f"{count} x {properties.name}", f"sm_{properties.major}{properties.minor}, {memory_gb(part):.0f} GB"


def driver(part: Part) -> tuple[str, str]:
    if part.dry_run:
        return "none", ""
    query = "driver_version,pcie.link.gen.max,pcie.link.width.max"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    version, generation, lanes = subprocess.check_output(command, text=True).splitlines()[0].split(", ")
    return version, f"PCIe {generation} x{lanes}"


def libraries(part: Part) -> tuple[str, str]:
    names = ("torch", "triton", "nvidia-dali-cuda130", "nvidia-dali-cuda120")
    installed = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    found = ", ".join(f"{name} {installed[name]}" for name in names if name in installed)
    return f"Python {platform.python_version()}", f"{found}, CUDA {torch.version.cuda}"


def processors(part: Part) -> tuple[str, str]:
    names = [line.partition(": ")[2] for line in CPU_INFO.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{num_processors()} processors", f"{name}, {free_memory() / GIB:.0f} GiB of memory free"


def images(part: Part) -> tuple[str, str]:
    return str(len(photos())), ""


def compiling(part: Part) -> tuple[str, str]:
    """Triton compiles its launcher in C."""
    found, header = compiler(), Path(sysconfig.get_paths()["include"], "Python.h")
    if found is None or not header.exists():
        missing = "a C compiler" if found is None else header
        raise RuntimeError(f"{missing} is missing, which Triton needs to launch: apt-get install gcc python3-dev")
    return "found", found


def shared_memory(part: Part) -> tuple[str, str]:
    free = shutil.disk_usage("/dev/shm").free
    advice = "too little for other loaders' worker processes: docker run --shm-size=8g" if free < 2 * GIB else ""
    return f"{free / 2**20:,.0f} MiB", advice


def copying(part: Part) -> tuple[str, str]:
    num_bytes = 2**16 if part.dry_run else 2**28
    source = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=not part.dry_run)
    return f"{num_bytes / timed(part, lambda: source.to(part.device, non_blocking=True)) / 1e9:.1f} GB/s", ""


def decoding(part: Part) -> tuple[str, str]:
    image = drawing(375, 500)
    encoded = np.frombuffer(encode(image, "JPEG", quality=90), np.uint8)
    where = {"device": "cpu", "device_id": None} if part.dry_run else {"device": "gpu", "device_id": part.device.index}
    block, _ = pipelines.DecodePipeline([[encoded]], batch_size=1, num_threads=1, **where).take()
    found = torch.empty(375 * 500 * 3, dtype=torch.uint8).copy_(torch.from_dlpack(block))
    expected = torch.from_numpy(np.array(Image.open(io.BytesIO(encoded.tobytes())))).flatten()
    steps = abs(found.int() - expected.int()).float()
    if steps.mean() > 1:
        raise RuntimeError(f"the mean difference from Pillow is {steps.mean():.1f} of 255, expected less than 1")
    return f"worst step {steps.max():.0f} of 255", ""


def hardware_decoder(part: Part) -> tuple[str, str]:
    return str(num_jpeg_engines()) if num_jpeg_engines() else "none", ""


def launching(part: Part) -> tuple[str, str]:
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(0, 256, (37, 53, 3), dtype=torch.uint8, generator=generator)
    matrix, once = torch.eye(3)[None], torch.ones(1)
    luts = torch.arange(256, dtype=torch.uint8).expand(1, 3, 256).contiguous()
    out = torch.empty(1, 32, 32, 3, dtype=torch.uint8, device=part.device)
    started = time.perf_counter()
    kernels.warp([source.to(part.device)], matrix, once.int(), once, luts, out)
    expected = reference.warp([source], matrix, once.int(), once, (32, 32), "reflect").round()
    if (out.cpu() - expected).abs().max() > 1:
        raise RuntimeError("the kernel differs from its specification")
    return "correct", f"{time.perf_counter() - started:.1f} s with compiling"


def products(part: Part) -> tuple[str, str]:
    side = 64 if part.dry_run else 8192
    matrix = torch.ones(side, side, dtype=torch.float32 if part.dry_run else torch.float16, device=part.device)
    tflops = 2 * side**3 / timed(part, lambda: torch.mm(matrix, matrix)) / 1e12
    if part.dry_run:
        return f"{tflops:.0f} TFLOP/s", ""
    scale = Scale.of(memory_gb(part), tflops)
    part.choose(scale)
    return f"{tflops:.0f} TFLOP/s", f"batches of {scale.batch_size}, in training {scale.train_batch_size}"


def timed(part: Part, call: Callable[[], object]) -> float:
    """The seconds of a call, the shortest of five."""
    seconds = []
    for _ in range(5):
        part.wait()
        started = time.perf_counter()
        call()
        part.wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def memory_gb(part: Part) -> float:
    return torch.cuda.get_device_properties(part.device).total_memory / 1e9


CHECKS: dict[str, Callable[[Part], tuple[str, str]]] = {
    "GPU": gpu,
    "driver": driver,
    "libraries": libraries,
    "CPU": processors,
    "photos in FASTPETS_PETS": images,
    "C compiler and Python.h": compiling,
    "/dev/shm": shared_memory,
    "copy from pinned memory": copying,
    "one JPEG decoded by DALI": decoding,
    "hardware JPEG decoders": hardware_decoder,
    "one kernel launch": launching,
    "float16 products": products,
}


if __name__ == "__main__":
    sys.exit(main())

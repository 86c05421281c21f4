"""Triton's kernels without a GPU: run in its interpreter, or compiled to machine code whose resources are counted."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
# T4; H100; then A100; RTX 3090; L4 and RTX 4090; B200; RTX 5090
CAPABILITIES = [75, 90, *(pytest.param(capability, marks=pytest.mark.slow) for capability in (80, 86, 89, 100, 120))]


class Compiled(NamedTuple):
    """A compiled kernel: its layouts, a thread's registers (REG), bytes of STACK and of LOCAL memory, and its code.

    `loops` are the parts of the code that a branch repeats, the shortest first.
    """

    layouts: str
    used: dict[str, int]
    instructions: list[str]
    loops: list[list[str]]


def interpreted(module: ModuleType) -> ModuleType:
    """A second copy of a kernel's module, for Triton's interpreter: Triton reads TRITON_INTERPRET on import."""
    spec = importlib.util.spec_from_file_location(f"{module.__name__.rpartition('.')[2]}_interpreted", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec.loader.exec_module(copy)
    return copy


def compiled(
    kernel: Any, arguments: dict[str, str], constants: dict[str, Any], capability: int, folder: Path, **options: Any
) -> Compiled:
    """Compiles a kernel for a compute capability, such as 90. `arguments` are types by name; pointers are aligned.

    `folder` is for Triton's cache, which is not read: the test would not see a change of the compiler.
    """
    signature = arguments | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(arguments.values()) if kind.startswith("*")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder))
        source = ASTSource(kernel, signature, constants, aligned)
        asm = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": 4, **options}).asm
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(asm["cubin"])
    used = {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", _dump(cubin, "resource-usage"))}
    return Compiled(" ".join(re.findall(r"blocked<.*>", asm["ttgir"])), used, *_code(_dump(cubin, "sass")))


def _code(sass: str) -> tuple[list[str], list[list[str]]]:
    """The names of all instructions, and those of each loop: from the target of a branch backwards to the branch."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?\S+\s+)?([A-Z][\w.]*)([^;]*);", sass)
    code = [(int(address, 16), name, operands) for address, name, operands in lines if name != "NOP"]
    targets = {end: int(operands.split()[-1], 16) for end, name, operands in code if name.startswith("BRA")}
    loops = [
        [name for address, name, _ in code if start <= address <= end] for end, start in targets.items() if start < end
    ]
    return [name for _, name, _ in code], sorted(loops, key=len)


def _dump(cubin: Path, what: str) -> str:
    command = [TOOL, f"--dump-{what}", cubin]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

"""Triton's own launch path without a GPU: its launcher runs on a stub of CUDA's driver library, which runs no kernel.

Tensors on the CPU take the place of a GPU's. A process that has the stub must not use a real GPU.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import triton

SOURCE = Path(__file__).with_name("stub_libcuda.c")


def compiler() -> str | None:
    """The C compiler with which Triton builds its launcher, or None."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


class StubCuda:
    """Makes Triton launch on the stub in this process, and tells what it launched; builds it in `folder`."""

    def __init__(self, folder: Path) -> None:
        from triton.backends.nvidia import driver

        built, headers = folder / "libcuda.so.1", Path(driver.__file__).parent / "include"
        command = [compiler(), SOURCE, "-shared", "-fPIC", f"-Wl,-soname,{built.name}", f"-I{headers}", "-o", built]
        subprocess.run(list(map(str, command)), check=True)
        os.environ |= {"TRITON_LIBCUDA_PATH": str(folder), "TRITON_CACHE_DIR": str(folder / "triton")}
        self.library = ctypes.CDLL(str(built), ctypes.RTLD_GLOBAL)  # a later look-up of this name finds it
        self.driver = driver.CudaDriver()
        self.driver.get_current_stream = lambda device: 0
        self.use(90)
        triton.runtime.driver.set_active(self.driver)

    def use(self, capability: int) -> None:
        """Launches for a GPU of a compute capability (90: 9.0) from now on; for Triton each is a device of its own."""
        self._variable("stub_capability", ctypes.c_int).value = capability
        self.driver.get_current_device = lambda: capability
        self.driver.get_device_capability = lambda device: divmod(capability, 10)

    @property
    def variants(self) -> list[str]:
        """The kernel of each variant that was compiled and loaded so far."""
        names = self._variable("stub_names", ctypes.c_char * 128 * 256)
        return [name.value.decode() for name in names[: self._variable("stub_num_modules", ctypes.c_int).value]]

    @property
    def num_launches(self) -> int:
        """The number of launches so far."""
        return self._variable("stub_num_launches", ctypes.c_long).value

    @property
    def last_launch(self) -> tuple[list[int], list[int], int]:
        """The grid, the block, and the first argument, an address, of the last launch."""
        grid, block = (list(self._variable(name, ctypes.c_uint * 3)) for name in ("stub_grid", "stub_block"))
        return grid, block, self._variable("stub_first_argument", ctypes.c_ulonglong).value

    def _variable(self, name: str, kind: type) -> "ctypes._CData":
        return kind.in_dll(self.library, name)

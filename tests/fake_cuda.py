"""A CUDA layer without a GPU, whose streams run as late as they may, and whose allocators overwrite what is freed.

Work on a device is put into the queue of its stream, and runs only when the host waits for it, directly or through an
event; nothing else orders streams. It addresses memory by pointer and keeps nothing alive, as a GPU does. What a GPU
would read or write too early or too late is therefore read or written at that wrong time here as well.

It covers what a Loader uses: allocation, copies, streams, events, DALI's images, and the launches of kernels, which are
computed as on a CPU. Anything else is computed at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from fastpets import kernels, pipelines
from fastpets.augment import lookup_tables
from fastpets.kernels import luts_triton, warp_cpu, warp_triton
from fastpets.loading.pool import Pool

FREED = 0xDD
CPU_PIPELINE, FROM_DLPACK, SUBMIT = pipelines.DecodePipeline, torch.from_dlpack, Pool.submit


class Mark:
    """A place in a stream's queue."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.passed = stream, False


class Stream:
    """A queue of functions, of marks, and of marks of other streams that it waits for."""

    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device = torch.device(device if device is not None else Cuda.active.current_device())
        self.queue: deque[Callable[[], None] | Mark] = deque()

    def put(self, work: Callable[[], None] | Mark) -> None:
        with Cuda.active.lock:
            self.queue.append(work)

    def wait_event(self, event: Event) -> None:
        if event.mark is not None:
            self.put(event.mark)

    def wait_stream(self, other: Stream) -> None:
        event = Event()
        event.record(other)
        self.wait_event(event)

    def synchronize(self) -> None:
        event = Event()
        event.record(self)
        event.synchronize()

    def run_to(self, mark: Mark) -> None:
        while not mark.passed:
            work = self.queue.popleft()
            if not isinstance(work, Mark):
                work()
            elif work.stream is self:
                work.passed = True
            else:
                work.stream.run_to(work)


class Event:
    """A mark that is passed only when somebody waits for it."""

    def __init__(self, **_: Any) -> None:
        self.mark: Mark | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or Cuda.active.current_stream()
        self.mark = Mark(stream)
        stream.put(self.mark)

    def query(self) -> bool:
        return self.mark is None or self.mark.passed

    def synchronize(self) -> None:
        with Cuda.active.lock:
            if self.mark is not None:
                self.mark.stream.run_to(self.mark)


class DeviceTensor(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Cuda.active.call(func, args, kwargs or {})


class Mode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Cuda.active.call(func, args, kwargs or {})


class Memory:
    """A device's memory, which stays mapped for ever. `in_use` counts the blocks that cannot be allocated again yet."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []
        self.in_use = self.most_in_use = 0

    def allocate(self, num_bytes: int, free: Callable[[np.ndarray], None], device: torch.device) -> torch.Tensor:
        base = np.full(max(num_bytes, 1), FREED, np.uint8)
        self.kept.append(base)
        return self.lend(base, num_bytes, free, device)

    def lend(
        self, base: np.ndarray, num_bytes: int, free: Callable[[np.ndarray], None], device: torch.device
    ) -> torch.Tensor:
        """A tensor (num_bytes,) in a block, which calls `free` when nothing refers to the tensor any more."""
        self.in_use += 1
        self.most_in_use = max(self.most_in_use, self.in_use)
        memory = base[:num_bytes]
        weakref.finalize(memory, free, base)
        return on_device(torch.from_numpy(memory), device)

    def overwrite_freed(self, base: np.ndarray) -> None:
        base[:] = FREED
        self.in_use -= 1


class Cuda:
    """The layer while it is installed, with two GPUs, of which the first is the current one.

    Attributes:
        dali, torch: the memory of DALI's images, and of tensors.
    """

    active: Cuda

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.dali, self.torch = Memory(), Memory()
        self.recorded: dict[int, set[Stream]] = {}  # by address
        self.pinned: set[int] = set()  # addresses
        self.unused: dict[tuple[Stream, int], list[np.ndarray]] = {}
        self.devices = [torch.device("cuda", index) for index in range(2)]

    @classmethod
    @contextlib.contextmanager
    def installed(cls) -> Iterator[Cuda]:
        cls.active = cuda = cls()
        cuda.default = {device: Stream(device) for device in cuda.devices}
        cuda.threads = threading.local()
        with pytest.MonkeyPatch.context() as patch, Mode():
            for name in ("current_stream", "stream", "current_device", "synchronize"):
                patch.setattr(torch.cuda, name, getattr(cuda, name))
            patch.setattr(torch.cuda, "Stream", Stream)
            patch.setattr(torch.cuda, "Event", Event)
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "device_count", lambda: len(cuda.devices))
            patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**34, 2**34))
            patch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
            patch.setattr(torch.cuda, "cudart", lambda: cuda)
            patch.setattr(Pool, "submit", submit)
            patch.setattr(torch.Tensor, "record_stream", record_stream)
            patch.setattr(torch, "from_dlpack", from_dlpack)
            patch.setattr(pipelines, "DecodePipeline", make_pipeline)
            patch.setattr(warp_triton, "launch", launch_warp)
            patch.setattr(luts_triton, "launch", launch_luts)
            yield cuda
            cuda.synchronize()

    def cudaHostRegister(self, address: int, num_bytes: int, flags: int) -> int:
        assert address not in self.pinned
        self.pinned.add(address)
        return 0

    def cudaHostUnregister(self, address: int) -> None:
        self.pinned.remove(address)

    def current_device(self) -> int:
        return 0

    def current_stream(self, device: Any = None) -> Stream:
        device = self.devices[torch.device("cuda" if device is None else device).index or 0]
        return self.current.get(device, self.default[device])

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before = dict(self.current)
        self.current[stream.device] = stream
        try:
            yield
        finally:
            self.threads.current = before

    @property
    def current(self) -> dict[torch.device, Stream]:
        """The current streams of this thread, if they are not the default ones."""
        return self.threads.__dict__.setdefault("current", {})

    def synchronize(self, device: Any = None) -> None:
        for stream in self.default.values():
            stream.synchronize()

    def empty(self, num_bytes: int, device: torch.device) -> torch.Tensor:
        """Allocates as torch does: memory that is freed may be allocated at once, for the stream that it was made for.

        What that stream writes into it, here FREED, may come later. If the memory was recorded for other streams, it is
        freed when they are done.
        """
        stream = self.current_stream(device)
        unused = self.unused.setdefault((stream, num_bytes), [])

        def free(base: np.ndarray) -> None:
            others = self.recorded.pop(base.ctypes.data, set())
            for other in others:
                stream.wait_stream(other)
            if others:
                stream.put(lambda: self.torch.overwrite_freed(base))
            else:
                self.torch.in_use -= 1
                stream.put(lambda: base.fill(FREED))
                unused.append(base)

        if unused:
            return self.torch.lend(unused.pop(), num_bytes, free, device)
        return self.torch.allocate(num_bytes, free, device)

    def call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A function of torch. Copies from and to a device are queued."""
        with torch._C.DisableTorchFunctionSubclass():
            flat = [a for each in args for a in (each if isinstance(each, list) else [each])]
            device = next((a._fake_device for a in flat if isinstance(a, DeviceTensor)), None)
            name = getattr(func, "__name__", "")
            if func is torch.empty and torch.device(kwargs.get("device") or "cpu").type == "cuda":
                return self.tensor(args, kwargs)
            if func is torch.empty:
                return func(*args, **{name: value for name, value in kwargs.items() if name != "pin_memory"})
            if func is torch.Tensor.pin_memory:
                return args[0].clone()
            if func is torch.Tensor.to and torch.device(args[1] if len(args) > 1 else "cpu").type == "cuda":
                out = self.tensor(tuple(args[0].shape), {"dtype": args[0].dtype, "device": args[1]})
                return self.copy(out, args[0])
            if device is None:
                return func(*args, **kwargs)
            if func == torch.Tensor.device.__get__:
                return device
            if func == torch.Tensor.is_cuda.__get__:
                return True
            if func is torch.Tensor.copy_:
                return self.copy(args[0], args[1])
            if func is torch._foreach_copy_:
                return [self.copy(out, source) for out, source in zip(*args, strict=True)]
            if name in ("cpu", "numpy"):
                self.current_stream(device).synchronize()
                return getattr(args[0].as_subclass(torch.Tensor).clone(), name)()
            result = func(*args, **kwargs)
            if name == "split":
                return [on_device(part, device) for part in result]
            return on_device(result, device) if isinstance(result, torch.Tensor) else result

    def tensor(self, args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
        shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
        dtype = kwargs.get("dtype") or torch.float32
        num_bytes = int(np.prod(tuple(shape))) * dtype.itemsize
        device = self.devices[torch.device(kwargs["device"]).index or 0]
        return on_device(self.empty(num_bytes, device).as_subclass(torch.Tensor).view(dtype).view(*shape), device)

    def copy(self, out: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Queues a copy on the current stream. The host's memory stays alive, as torch's pinned memory does."""
        device = next(tensor._fake_device for tensor in (out, source) if isinstance(tensor, DeviceTensor))
        assert out.is_contiguous()
        assert source.is_contiguous()
        assert out.shape == source.shape
        host = [tensor for tensor in (out, source) if not isinstance(tensor, DeviceTensor)]
        to, of, num_bytes = out.data_ptr(), source.data_ptr(), out.numel() * out.element_size()

        def work(host: Any = host) -> None:
            ctypes.memmove(to, of, num_bytes)

        self.current_stream(device).put(work)
        return out


def submit(pool: Pool, work: Callable[..., Any], *arguments: Any) -> Any:
    """Has a thread of a pool work on the same GPUs: a mode of torch is that of one thread."""

    def work_in_mode() -> Any:
        with Mode():
            return work(*arguments)

    return SUBMIT(pool, work_in_mode)


def record_stream(tensor: torch.Tensor, stream: Stream) -> None:
    with torch._C.DisableTorchFunctionSubclass():
        Cuda.active.recorded.setdefault(tensor.untyped_storage().data_ptr(), set()).add(stream)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        tensor = tensor.as_subclass(DeviceTensor)
        tensor._fake_device = device
        return tensor


def from_dlpack(block: Any) -> torch.Tensor:
    return block if isinstance(block, DeviceTensor) else FROM_DLPACK(block)


def make_pipeline(first: Sequence[pipelines.Encoded], *, device: str, **rest: Any) -> Any:
    return CPU_PIPELINE(first, device=device, **rest) if device == "cpu" else Pipeline(first, **rest)


class Pipeline:
    """In place of a DALI pipeline on a GPU: decodes on the CPU, into memory that is overwritten once it is freed."""

    def __init__(self, first: Sequence[pipelines.Encoded], *, device_id: int, **rest: Any) -> None:
        self.device = torch.device("cuda", device_id)
        with torch._C.DisableTorchFunction():
            self.decoder = CPU_PIPELINE(first, device="cpu", device_id=None, **rest)

    def put(self, encoded: pipelines.Encoded) -> None:
        self.decoder.put(encoded)

    def take(self) -> tuple[torch.Tensor, np.ndarray]:
        with torch._C.DisableTorchFunction():
            capsule, sizes = self.decoder.take()
            decoded = torch._C._from_dlpack(capsule).numpy()
            memory = Cuda.active.dali
            block = memory.allocate(len(decoded), memory.overwrite_freed, self.device)
            ctypes.memmove(block.data_ptr(), decoded.ctypes.data, len(decoded))
        return block, sizes


def launch_luts(adjustments: torch.Tensor, normalization: Any, out: torch.Tensor) -> None:
    """Queues the kernel that makes lookup tables."""
    with torch._C.DisableTorchFunctionSubclass():
        addresses, count = (adjustments.data_ptr(), out.data_ptr()), len(out)
        dtype, device = out.dtype, out._fake_device

    def work() -> None:
        with torch._C.DisableTorchFunction():
            parameters = at(addresses[0], (count, len(lookup_tables.ADJUSTMENTS)), torch.float64).numpy()
            luts = kernels.converted(lookup_tables.luts(parameters, normalization), dtype)
            at(addresses[1], (count, 3, 256), dtype).copy_(luts)

    Cuda.active.current_stream(device).put(work)


def launch_warp(rows: torch.Tensor, luts: torch.Tensor, out: torch.Tensor, borders: str) -> None:
    """Queues the warp kernel: all that it is given are addresses."""
    with torch._C.DisableTorchFunctionSubclass():
        addresses = rows.data_ptr(), luts.data_ptr(), out.data_ptr()
        shape, dtype, device = tuple(out.shape), out.dtype, out._fake_device

    def work() -> None:
        with torch._C.DisableTorchFunction():
            rows = at(addresses[0], (shape[0], 8), torch.int64)
            integers, floats = rows.view(torch.int32), rows.view(torch.float32)
            images = [
                at(int(address), (*size, 3), torch.uint8)
                for address, size in zip(rows[:, 0], integers[:, 2:4].tolist(), strict=True)
            ]
            warp_cpu.warp(
                images,
                floats[:, 5:14].reshape(-1, 3, 3).contiguous(),
                integers[:, 4].contiguous(),
                floats[:, 14].contiguous(),
                at(addresses[1], (shape[0], 3, 256), dtype),
                at(addresses[2], shape, dtype),
                borders,
            )

    Cuda.active.current_stream(device).put(work)


def at(address: int, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))
    return torch.from_numpy(memory).view(dtype).view(*shape)

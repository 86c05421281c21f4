"""Data-parallel training in the processes that torchrun starts. Each function also works in a single process."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.loading.sampler import resolve_ranks

Value = TypeVar("Value")


def local_device(device: str) -> str:
    """The device of this process: under torchrun the GPU number LOCAL_RANK, unless `device` is the CPU; else `device`.

    Raises FastpetsError if there is no such GPU.
    """
    if not _is_torchrun():
        return device
    if device.startswith("cuda:"):
        raise InvalidArgumentError(
            f"device: {device}, but under torchrun each process has a GPU of its own; expected cuda or auto"
        )
    if device != "cuda" and not (device == "auto" and torch.cuda.is_available()):
        return device
    local_rank = int(os.environ["LOCAL_RANK"])
    if local_rank >= torch.cuda.device_count():
        raise FastpetsError(
            f"LOCAL_RANK {local_rank}, but torch sees {torch.cuda.device_count()} GPUs; start at most one process for "
            "each"
        )
    return f"cuda:{local_rank}"


def is_first_process() -> bool:
    """Whether this is torchrun's first process, or the only one, also before `start`."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def only_first_process_prints() -> Iterator[None]:
    """Under torchrun, discards the warnings and the standard output of all processes but the first."""
    if is_first_process():
        yield
        return
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def start(device: str) -> None:
    """Joins the process group if torchrun started this process. GPUs communicate by NCCL, CPUs by gloo."""
    if not _is_torchrun() or dist.is_initialized():
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(minutes=30))


def stop() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return resolve_ranks(None, None)[0]


def world_size() -> int:
    """The number of processes."""
    return resolve_ranks(None, None)[1]


@contextlib.contextmanager
def local_first() -> Iterator[None]:
    """Runs the block in the first process of each machine, then in the others, so that only the first downloads."""
    is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if world_size() > 1 and not is_first:
        dist.barrier()
    yield
    if world_size() > 1 and is_first:
        dist.barrier()


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean of each value over all processes."""
    if world_size() == 1:
        return values
    values = values.to(_message_device(), copy=True)  # all_reduce overwrites its argument
    dist.all_reduce(values)
    return values / world_size()


def gather(value: Value) -> list[Value]:
    """The values of all processes, which are pickled, by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true in one of the processes."""
    return flag if world_size() == 1 else bool(mean(torch.tensor(float(flag))) > 0)


def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Replaces the tensors' values by those of the first process."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, with several processes in a wrapper that averages its gradients over all of them."""
    if world_size() == 1:
        return model
    # A static graph may have parameters without gradients, such as layers that a backbone's features do not use.
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, static_graph=True)


@contextlib.contextmanager
def without_exchange(model: nn.Module) -> Iterator[None]:
    """A forward and backward pass of a `data_parallel` model that keeps its gradients to this process."""
    with model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext():
        yield


def average_gradients(model: nn.Module) -> None:
    """Replaces the gradients of a model's parameters by their means over all processes."""
    if world_size() > 1:
        for parameter in model.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world_size()


def _is_torchrun() -> bool:
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def _message_device() -> torch.device:
    """The device whose tensors the process group can exchange."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")

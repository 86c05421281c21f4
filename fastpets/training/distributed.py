"""Several processes that train one model, as torchrun starts them; each function also works in the only process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastpets.errors import FastpetsError


def start(device: str) -> str:
    """Joins the other processes that torchrun started, if it did, and names this one's device.

    LOCAL_RANK picks the GPU. Raises FastpetsError if there is none of that number.
    """
    if "LOCAL_RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return device
    if device.startswith("cuda:"):
        raise FastpetsError(f"--device {device}: each process under torchrun has a GPU of its own; say cuda or auto")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise FastpetsError(
                f"LOCAL_RANK {local}, but torch sees {torch.cuda.device_count()} GPUs; start as many processes"
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(minutes=30))
    return device


def stop() -> None:
    """Leaves the group of processes, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Which process this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Has the first process of each machine do something before the others, such as a download."""
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
    values = values.to(_device())
    dist.all_reduce(values)
    return values / world_size()


def any_of(flag: bool) -> bool:
    """Whether the flag is up in one of the processes."""
    return flag if world_size() == 1 else bool(mean(torch.tensor(float(flag))) > 0)


def from_first(tensors: Iterable[torch.Tensor]) -> None:
    """Gives all processes the first one's values."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def averaging_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, for training: with several processes, gradients are means over all of them."""
    if world_size() == 1:
        return model
    # A static graph may have parameters without gradients, such as layers that a backbone's features do not pass.
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, static_graph=True)


def _device() -> torch.device:
    """Where the group's messages must lie."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")

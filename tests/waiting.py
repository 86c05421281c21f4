"""Finds operations for which the host waits for a GPU, without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda:0")
# They read a value, or the size of their result depends on values.
WAITING = {"_local_scalar_dense", "equal", "bincount", "nonzero", "masked_select", "_unique2", "unique_dim"}


class _FailsOnWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        on_host = {each.device.type == "cpu" for each in args if isinstance(each, torch.Tensor)}
        assert not (name in WAITING and False in on_host), f"{name} waits for the device"
        if name == "_to_copy" and kwargs.get("device") is not None:
            on_host.add(kwargs["device"].type == "cpu")
        if name in ("_to_copy", "copy_") and on_host == {True, False}:
            is_ordered = kwargs.get("non_blocking") or True in args[2:3]
            assert is_ordered, f"{name} between the host and the device waits for it"
        return function(*args, **kwargs)


@contextmanager
def imagined_gpu() -> Iterator[torch.device]:
    """A GPU whose tensors have shapes but no values."""
    with FakeTensorMode():
        yield GPU


def nothing_waits() -> TorchDispatchMode:
    """Within this context, an operation for which the host would wait for a GPU fails."""
    return _FailsOnWaiting()

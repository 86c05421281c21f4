"""Out of memory: replaces torch's error by one that names what to change, such as a batch size that was tried."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from fastpets.errors import FastpetsError
from fastpets.loading.cache import gigabytes
from fastpets.loading.memory_cache import MemoryCache
from fastpets.models.classifier import has_batch_norm
from fastpets.training.train_step import TrainStep

if TYPE_CHECKING:
    from fastpets.loading.loader import Loader

T = TypeVar("T")

ALTERNATIVES = "mixed precision (amp), a smaller size or a smaller arch also need less"


def guard(function: Callable[[], T], make_error: Callable[[], FastpetsError]) -> T:
    """Returns `function()`. If it runs out of memory, raises the error that `make_error` returns instead."""
    try:
        return function()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler: inside it, the failed step's frames still hold its tensors, so that nothing would fit.
    raise make_error()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def training_error(train_step: TrainStep, train: Loader, valid: Loader) -> FastpetsError:
    """An error for training on batches that do not fit. Tries smaller batch sizes and names the first that fits."""
    for loader in (train, valid):
        loader.end_prepared()  # in whose memory more would fit
    batch_size, size = train.batch_size, train.preprocessing.size
    alternatives = f"{ALTERNATIVES}{_about_caches(train, valid)}"
    found = f"out of memory at a batch size of {batch_size}, {size[0]} x {size[1]} px"
    fitting = largest_fitting(train_step, batch_size, size, train.dtype)
    if fitting is None:
        return FastpetsError(f"{found}, and at a half of it, a quarter and so on; {alternatives}")
    accumulate = -(-batch_size // fitting) * train_step.options.accumulate
    number = "as many" if batch_size % fitting == 0 else "about as many"
    return FastpetsError(
        f"{found}; {fitting} fits: batch_size={fitting} with accumulate={accumulate} trains on {number} images per "
        f"step; {alternatives}"
    )


def validation_error(loader: Loader, train: Loader) -> FastpetsError:
    """An error for validating on batches of `loader`, which do not fit."""
    height, width = loader.preprocessing.size
    return FastpetsError(
        f"out of memory in validation, at a batch size of {loader.batch_size}, {height} x {width} px; lower the "
        f"validation loader's batch_size; {ALTERNATIVES}{_about_caches(train, loader)}"
    )


def _about_caches(*loaders: Loader) -> str:
    """What to do about cached images in the memory that was too small, if there are any."""
    device = loaders[0].device
    caches = {id(loader.cache): loader.cache for loader in loaders if isinstance(loader.cache, MemoryCache)}
    num_bytes = sum(cache.block.numel() for cache in caches.values() if cache.device == device)
    if num_bytes == 0:
        return ""
    other = "disk" if device.type == "cpu" else "host"
    return f"; cached images take {gigabytes(num_bytes)} of this memory: lower cache_gb, or use cache={other!r}"


def largest_fitting(train_step: TrainStep, batch_size: int, size: tuple[int, int], dtype: torch.dtype) -> int | None:
    """The largest batch size that fits among a half, a quarter and so on of `batch_size`, or None."""
    smallest = 2 if has_batch_norm(train_step.model) else 1
    candidate = batch_size // 2
    while candidate >= smallest:
        if _fits(train_step, (candidate, 3, *size), dtype):
            return candidate
        candidate //= 2
    return None


def _fits(train_step: TrainStep, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether there is memory for a forward and backward pass. Clears the gradients and restores the buffers."""
    gc.collect()  # frees the failed step's tensors
    if train_step.device.type == "cuda":
        torch.cuda.empty_cache()
    model = train_step.model
    train_step.optimizer.zero_grad()
    images = torch.zeros(shape, device=train_step.device, dtype=dtype)
    labels = torch.zeros(shape[0], dtype=torch.int64, device=train_step.device)
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        # The other processes do not take this step, so it must not exchange gradients. It uses neither wrapped_model
        # nor backward(), which would run DistributedDataParallel's hooks: the failed step may have left them armed.
        loss = train_step.loss(train_step.logits(images, model), labels)
        torch.autograd.grad(loss, [each for each in model.parameters() if each.requires_grad], allow_unused=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            return False
        raise
    finally:
        train_step.optimizer.zero_grad()
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)
    return True

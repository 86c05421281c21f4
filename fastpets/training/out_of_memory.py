"""Out of memory: finds a batch size that fits and says so."""

from __future__ import annotations

import gc

import torch

from fastpets.errors import FastpetsError
from fastpets.models.classifier import has_batch_norm
from fastpets.training.train_step import TrainStep


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not allocate memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def advice(train_step: TrainStep, batch_size: int, size: tuple[int, int], dtype: torch.dtype) -> FastpetsError:
    """An error that names a batch size that fits, if there is one, for one that does not.

    `size` and `dtype` are those of the images.
    """
    found = f"out of memory at a batch size of {batch_size}, {' x '.join(map(str, size))} px"
    others = "; mixed precision (amp), a smaller size or a smaller arch need less, too"
    fitting = largest_fitting(train_step, batch_size, size, dtype)
    if fitting is None:
        return FastpetsError(f"{found}, and at all smaller ones{others}")
    accumulate = -(-batch_size // fitting) * train_step.options.accumulate
    return FastpetsError(
        f"{found}; {fitting} fits: batch_size={fitting} with accumulate={accumulate} trains on as many images per "
        f"step{others}"
    )


def largest_fitting(train_step: TrainStep, batch_size: int, size: tuple[int, int], dtype: torch.dtype) -> int | None:
    """The largest batch size that fits among a half, a quarter and so on of `batch_size`, or None."""
    smallest = 2 if has_batch_norm(train_step.model) else 1
    candidate = batch_size // 2
    while candidate >= smallest:
        images = (candidate, 3, *size)
        if _fits(train_step, images, dtype):
            return candidate
        candidate //= 2
    return None


def _fits(train_step: TrainStep, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether there is memory for a forward and backward pass; gradients and buffers are reset after it."""
    gc.collect()  # frees what the failed step held
    if train_step.device.type == "cuda":
        torch.cuda.empty_cache()
    model = train_step.model
    train_step.optimizer.zero_grad()
    images = torch.zeros(shape, device=train_step.device, dtype=dtype)
    labels = torch.zeros(shape[0], dtype=torch.int64, device=train_step.device)
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        # `model` itself, not the wrapper that averages gradients: other processes do not take part.
        train_step.loss(train_step.logits(images, model), labels).backward()
    except RuntimeError as error:
        if is_out_of_memory(error):
            return False
        raise
    finally:
        train_step.optimizer.zero_grad()
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)
    return True

"""What to do when the memory does not suffice for a training step."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import torch

from fastpets.errors import FastpetsError
from fastpets.models.classifier import has_batch_norm

if TYPE_CHECKING:
    from fastpets.training.learner import Learner


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is torch's for memory that it cannot have, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def advice(learner: Learner) -> FastpetsError:
    """What to say of a batch size that does not fit: which one does, tried out by training steps that are undone."""
    tried, least = learner.train.batch_size, 2 if has_batch_norm(learner.model) else 1
    fitting = tried // 2
    while fitting >= least and not _fits(learner, fitting):
        fitting //= 2
    what = f"out of memory at a batch size of {tried}, {' x '.join(map(str, learner.train.preprocessing.size))} px"
    others = "; --amp, a smaller --size or a smaller --arch need less, too"
    if fitting < least:
        return FastpetsError(f"{what}, and at all smaller ones{others}")
    accumulate = -(-tried // fitting) * learner.options.accumulate
    return FastpetsError(
        f"{what}; {fitting} fits: --batch-size {fitting} --accumulate {accumulate} trains on as many a step{others}"
    )


def _fits(learner: Learner, batch_size: int) -> bool:
    """Whether a forward and backward pass on so many black images can be had."""
    gc.collect()  # what the failed step held
    if learner.device.type == "cuda":
        torch.cuda.empty_cache()
    learner.train_step.optimizer.zero_grad()
    images = torch.zeros(
        batch_size, 3, *learner.train.preprocessing.size, device=learner.device, dtype=learner.train.dtype
    )
    labels = torch.zeros(batch_size, dtype=torch.int64, device=learner.device)
    statistics = [buffer.clone() for buffer in learner.model.buffers()]
    try:
        loss = learner.train_step.loss(
            learner.train_step.logits(images, learner.model), labels
        )  # in this process alone
        loss.backward()
    except RuntimeError as error:
        if is_out_of_memory(error):
            return False
        raise
    finally:
        learner.train_step.optimizer.zero_grad()
        for buffer, value in zip(learner.model.buffers(), statistics, strict=True):
            buffer.copy_(value)
    return True

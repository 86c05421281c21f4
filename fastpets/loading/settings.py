"""What a Loader's arguments stand for, and one clear line for those that stand for nothing."""

from typing import Any

import torch
import torch.distributed

from fastpets.errors import FastpetsError

THREADS = "batches are made by threads of this process, on the device, ahead of their use; leave it out"
# What a torch DataLoader is told and a Loader is not: why, and what to do.
REFUSED = {
    "dataset": "give it as the first argument",
    "batch_sampler": "give sampler, batch_size and drop_last",
    "collate_fn": "a batch is one tensor from the start; change it by batch_transform(images, labels)",
    "transform": "augment is what is done to each image, batch_transform(images, labels) what is done to a batch",
    "worker_init_fn": "there are no worker processes, and all draws depend on seed, epoch and image; leave it out",
    "generator": "give seed",
    "pin_memory": THREADS,
    "pin_memory_device": THREADS,
    "persistent_workers": THREADS,
    "prefetch_factor": THREADS,
    "multiprocessing_context": THREADS,
    "timeout": THREADS,
    "in_order": "batches always come in order; leave it out",
}

# Arguments of `Loader.like`'s loader that are those of the first, beside the preprocessing.
SEEING = ("batch_size", "batch_transform", "num_workers", "device", "hw_decoder_load", "on_bad_file")


def refuse(words: dict[str, Any]) -> None:
    """Raises FastpetsError for a DataLoader's word that means nothing here, TypeError for one that nobody knows."""
    for name in words:
        if name in REFUSED:
            raise FastpetsError(f"{name}: not a Loader's; {REFUSED[name]}")
        raise TypeError(f"Loader() got an unexpected keyword argument {name!r}")


def check_numbers(**numbers: int | None) -> None:
    """Raises FastpetsError for a number, by its name, that is below 1."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise FastpetsError(f"{name}: {value}, expected at least 1")


def resolve_ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Which of how many processes this is: as given, else as torch.distributed says, else the only one."""
    if (rank is None) != (world_size is None):
        raise FastpetsError(f"rank {rank} and world_size {world_size}, expected both or neither")
    if rank is None or world_size is None:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
    if not 0 <= rank < world_size:
        raise FastpetsError(f"rank: {rank}, expected 0 to {world_size - 1}, below world_size")
    return rank, world_size


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that a name stands for. Raises FastpetsError if it is a GPU that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise FastpetsError(f"device {device}: torch sees no GPU; use --device cpu, or mend the driver")
        device = torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
        if device.index >= torch.cuda.device_count():
            raise FastpetsError(f"device {device}: torch sees {torch.cuda.device_count()} GPUs, counted from 0")
    return device

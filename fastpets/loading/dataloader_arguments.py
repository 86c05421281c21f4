"""Parameters of torch's DataLoader that a Loader does not have, and what to do instead."""

from typing import Any

from fastpets.errors import InvalidArgumentError

THREADS = "a Loader prefetches with threads of this process; leave it out"
INSTEAD = {
    "dataset": "give it as the first argument",
    "batch_sampler": "give sampler, batch_size and drop_last",
    "collate_fn": "a batch is one tensor from the start; change it with batch_transform(images, labels)",
    "transform": "augment changes each image, batch_transform(images, labels) a whole batch",
    "worker_init_fn": "there are no worker processes, and random parameters depend on seed and image; leave it out",
    "generator": "give seed",
    "pin_memory": THREADS,
    "pin_memory_device": THREADS,
    "persistent_workers": THREADS,
    "prefetch_factor": THREADS,
    "multiprocessing_context": THREADS,
    "timeout": THREADS,
    "in_order": "batches always come in order; leave it out",
}


def reject(arguments: dict[str, Any]) -> None:
    """Raises InvalidArgumentError for a DataLoader's parameter, TypeError for an unknown one."""
    for name in arguments:
        if name in INSTEAD:
            raise InvalidArgumentError(f"{name}: not a parameter of Loader; {INSTEAD[name]}")
        raise TypeError(f"Loader() got an unexpected keyword argument {name!r}")
